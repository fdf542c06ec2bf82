package runtimetest

import (
	"testing"

	"github.com/wherry-project/wherry/internal/runtime"
)

func TestFake(t *testing.T) {
	Run(t, func(t *testing.T) Host {
		m := runtime.NewMachine(map[string]runtime.Program{Path: Program})
		return Host{
			Open:   func(*testing.T) runtime.Runtime { return m.Open() },
			Layers: []string{"/layer"},
		}
	})
}
