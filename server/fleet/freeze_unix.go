//go:build unix

package fleet

import "syscall"

// Freeze stops the node's process where it is; Thaw lets it go on.
func (n *Node) Freeze() error { return n.signal(syscall.SIGSTOP) }

// Thaw: see Freeze.
func (n *Node) Thaw() error { return n.signal(syscall.SIGCONT) }
