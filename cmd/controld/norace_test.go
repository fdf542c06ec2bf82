//go:build !race

package main

// watchMemory is what an idle watch may take.
const watchMemory = 128 << 10
