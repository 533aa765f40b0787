package audit

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the right edge of the log's Merkle tree (RFC 6962): the roots of its
// complete subtrees. That is all that appending and the root need, so a log of
// any length is built or checked in a few hundred bytes. The zero value is the
// empty tree.
type Tree struct {
	size int64
	edge []tlog.Hash // complete subtrees from left to right, the largest first
}

// LoadTree reads the right edge of a stored tree.
func LoadTree(size int64, stored tlog.HashReader) (*Tree, error) {
	if size < 0 || size > maxSize {
		return nil, fmt.Errorf("load tree: size %d is out of range", size)
	}
	var at []int64
	var covered int64
	for level := 62; level >= 0; level-- {
		if width := int64(1) << level; size&width != 0 {
			at = append(at, tlog.StoredHashIndex(level, covered>>level))
			covered += width
		}
	}
	edge, err := stored.ReadHashes(at)
	if err != nil {
		return nil, fmt.Errorf("load tree: %w", err)
	}
	return &Tree{size: size, edge: edge}, nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Append adds a leaf by its hash and returns the hashes to be stored for it:
// its own and that of each subtree that it completes. They belong at
// tlog.StoredHashIndex(0, n) for leaf n and at the places after it.
func (t *Tree) Append(leaf tlog.Hash) []tlog.Hash {
	// Adding a leaf is adding one in binary: each trailing 1 bit of the size is a
	// subtree as large as the one just made, and the two become one.
	completes := bits.TrailingZeros64(^uint64(t.size))
	nodes := make([]tlog.Hash, 1, completes+1)
	nodes[0] = leaf
	for range completes {
		last := len(t.edge) - 1
		leaf = tlog.NodeHash(t.edge[last], leaf)
		t.edge = t.edge[:last]
		nodes = append(nodes, leaf)
	}
	t.edge = append(t.edge, leaf)
	t.size++
	return nodes
}

// Root is the hash of the whole tree.
func (t *Tree) Root() tlog.Hash {
	if t.size == 0 {
		root, _ := tlog.TreeHash(0, nil) // the hash of nothing reads nothing
		return root
	}
	last := len(t.edge) - 1
	root := t.edge[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(t.edge[i], root)
	}
	return root
}
