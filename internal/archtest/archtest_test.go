package archtest

import (
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestLayout holds this repository to its own page.
func TestLayout(t *testing.T) {
	found, err := Check(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

const page = "One rule. `testkit` (leaks) and `archtest` stand outside the layers.\n" +
	"\n| layer | package | duty |\n| --- | --- | --- |\n" +
	"| 0 base | `gen/wherry/v1` | x |\n" +
	"| 1 ground | `nft` · `shim` | x |\n" +
	"| 2 model | `api` | x |\n" +
	"| 3 contracts | `store` | x |\n" +
	"| 3 mechanisms | `network` · `dns` | x |\n" +
	"| 3 | `images` | x |\n" +
	"| 4 engines | `raftstore` | x |\n" +
	"| 4 | `runtime/runc`; `runtime/runc/libct` | x |\n" +
	"| 5 control | `apiserver` · `controllers/<kind>` | x |\n" +
	"| 6 assemblies | `cli` | x |\n" +
	"\n1. The control side (`raftstore apiserver controllers`) and the node\n   side (`network dns images`) never.\n"

// tree returns a tree that keeps every rule, with one file more.
func tree(name, text string) fstest.MapFS {
	fs := fstest.MapFS{}
	files := map[string]string{
		"docs/layout.md":                       page,
		"internal/gen/wherry/v1/a.pb.go":       "package wherryv1\nfunc init() {}\n",
		"internal/nft/nft.go":                  "package nft\nimport _ \"embed\"\nimport \"github.com/google/nftables\"\n",
		"internal/api/api.go":                  "package api\nimport \"k8s.io/api/core/v1\"\n",
		"internal/store/store.go":              "package store\nimport (\"time\"; \"" + Module + "/internal/api\")\nvar d time.Duration\n",
		"internal/raftstore/fsm.go":            "package raftstore\nimport \"github.com/hashicorp/raft\"\ntype fsm struct{}\nfunc (fsm) Apply(l *raft.Log) any { return nil }\n",
		"internal/raftstore/raft.go":           "package raftstore\nimport (\"time\"; \"github.com/hashicorp/raft\")\nvar now = time.Now\ntype Store struct{ r *raft.Raft }\nfunc (s *Store) inner() *raft.Raft { return s.r }\n",
		"internal/network/network.go":          "package network\nimport \"" + Module + "/internal/nft\"\n",
		"internal/network/network_test.go":     "package network\nimport (\"" + Module + "/internal/dns\"; \"" + Module + "/internal/testkit\"; \"k8s.io/api/core/v1\")\n",
		"internal/controllers/job/job.go":      "package job\nimport \"" + Module + "/internal/raftstore\"\n",
		"internal/runtime/runc/libct/libct.go": "package libct\nimport _ \"github.com/opencontainers/runc/libcontainer/nsenter\"\n",
		"internal/testkit/testkit.go":          "package testkit\nimport \"" + Module + "/internal/nft\"\n",
		"cmd/noded/main.go":                    "package main\nimport (_ \"time/tzdata\"; \"" + Module + "/internal/network\"; \"" + Module + "/internal/raftstore\")\n",
		"cmd/podrun/main.go":                   "package main\nimport (\"" + Module + "/internal/runtime/runc/libct\"; \"github.com/opencontainers/runc/libcontainer\")\n",
		"tools/go.mod":                         "module x\n",
		"tools/util/a.go":                      "package util\n",
		"internal/api/testdata/bad/types.go":   "package types\nfunc init() {}\n",
	}
	if name != "" {
		files = maps.Clone(files)
		files[name] = text
	}
	for n, text := range files {
		fs[n] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

func TestRules(t *testing.T) {
	imports := func(paths ...string) string {
		return "package x\nimport (\n\"" + strings.Join(paths, "\"\n\"") + "\"\n)\n"
	}
	ours := func(p string) string { return Module + "/internal/" + p }
	tests := []struct{ name, file, text, want string }{
		{"a tree that keeps them", "", "", ""},
		{"1: not in the table", "internal/queue/queue.go", "package queue\n", "not in the table"},
		{"1: below a package of the table", "internal/api/deep/deep.go", "package deep\n", "not in the table"},
		{"1: neither program nor internal", "pkg/api/a.go", "package api\n", "programs are in cmd/"},
		{"1: upwards", "internal/nft/up.go", imports(ours("api")), "imports api of layer 2 from layer 1"},
		{"1: same layer", "internal/network/side.go", imports(ours("dns")), "imports dns of layer 3 from layer 3"},
		{"1: test upwards", "internal/nft/up_test.go", imports(ours("api")), "imports api of layer 2"},
		{"1: family member", "internal/controllers/job/up.go", imports(ours("apiserver")), "imports apiserver of layer 5"},
		{"1: testkit in the product", "internal/network/kit.go", imports(ours("testkit")), "which is for tests"},
		{"2: control to node", "internal/controllers/job/node.go", imports(ours("network")), "imports network of the node side from the control side"},
		{"2: cgo", "internal/api/c.go", imports("C"), "imports C"},
		{"3: sole", "internal/network/nl.go", imports("github.com/google/nftables/expr"), "only nft may"},
		{"3: sole, a test too", "internal/network/nl_test.go", imports("github.com/google/nftables"), "only nft may"},
		{"3: sole, sister module", "internal/apiserver/bolt.go", imports("github.com/hashicorp/raft-boltdb/v2"), "only raftstore may"},
		{"3: libct outside podrun", "cmd/noded/libct.go", imports(ours("runtime/runc/libct")), "linked only into cmd/podrun"},
		{"3: shim", "internal/shim/big.go", imports("golang.org/x/sys/unix"), "standard library only"},
		{"3: raft in an exported function", "internal/raftstore/x.go", "package raftstore\nimport \"github.com/hashicorp/raft\"\nfunc (s *Store) Raft() *raft.Raft { return nil }\n", "raft.Raft in an exported signature"},
		{"3: raft in an exported field", "internal/raftstore/x.go", "package raftstore\nimport r \"github.com/hashicorp/raft\"\ntype C struct{ Raft *r.Raft }\n", "r.Raft in an exported signature"},
		{"4: mechanism and Kubernetes", "internal/images/k.go", imports("k8s.io/api/core/v1"), "small Config of its own"},
		{"4: mechanism and api", "internal/dns/k.go", imports(ours("api")), "small Config of its own"},
		{"5: clock in the store", "internal/store/c.go", "package store\nimport clock \"time\"\nvar now = clock.Now()\n", "time.Now"},
		{"5: chance in the store", "internal/store/c.go", imports("math/rand/v2"), "same state"},
		{"5: clock in the state machine", "internal/raftstore/fsm_c.go", "package raftstore\nimport \"time\"\nvar t = time.Since\n", "time.Since"},
		{"5: state machine elsewhere", "internal/raftstore/c.go", "package raftstore\nimport \"github.com/hashicorp/raft\"\ntype f struct{}\nfunc (f) ApplyBatch(l []*raft.Log) []any { return nil }\n", "files named fsm"},
		{"6: init", "internal/api/i.go", "package api\nfunc init() {}\n", "func init"},
		{"6: blank import", "internal/api/i.go", "package api\nimport _ \"time/tzdata\"\n", "blank import of time/tzdata"},
		{"6: name", "internal/controllers/util/util.go", "package util\n", "says nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := Check(tree(tt.file, tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && len(found) > 0 || tt.want != "" && (len(found) != 1 || !strings.Contains(found[0], tt.want) || !strings.HasPrefix(found[0], tt.file+":")) {
				t.Errorf("found %q, want one of %q", found, tt.want)
			}
		})
	}
}

func TestUnreadablePages(t *testing.T) {
	for name, text := range map[string]string{
		"no table":   strings.ReplaceAll(page, "| layer |", "| level |"),
		"no sides":   strings.ReplaceAll(page, "control side", "other side"),
		"no outside": strings.ReplaceAll(page, "stand outside the layers", "are nice"),
	} {
		fs := tree("docs/layout.md", text)
		if found, err := Check(fs); err == nil {
			t.Errorf("%s: found %q and no error", name, found)
		}
	}
	if _, err := Check(tree("internal/api/broken.go", "package")); err == nil {
		t.Error("a broken file was read")
	}
}
