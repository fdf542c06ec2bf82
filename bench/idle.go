package main

import (
	"context"
	"errors"
)

// idle measures what an idle cluster writes.
func (b *bench) idle(context.Context) error { return errors.New("not measured yet") }
