//go:build race

package main

// watchMemory is what an idle watch may take: the race detector keeps shadows
// of all memory.
const watchMemory = 512 << 10
