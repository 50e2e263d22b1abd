//go:build !unix

package fleet

import "errors"

var errFrozen = errors.New("fleet: this system has no signal that stops a process where it is")

// Freeze fails: see errFrozen.
func (n *Node) Freeze() error { return errFrozen }

// Thaw fails: see errFrozen.
func (n *Node) Thaw() error { return errFrozen }
