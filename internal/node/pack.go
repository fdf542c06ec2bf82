package node

import (
	"encoding/binary"
	"fmt"
)

// join packs two messages into one.
func join(a, b []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(a)))
	return append(append(out, a...), b...)
}

// split undoes join.
func split(data []byte) (a, b []byte, err error) {
	n, k := binary.Uvarint(data)
	if k <= 0 || n > uint64(len(data)-k) {
		return nil, nil, fmt.Errorf("checkpoint is damaged; remove it and noded asks the control plane anew")
	}
	return data[k : k+int(n)], data[k+int(n):], nil //nolint:gosec // bounded by len(data)
}
