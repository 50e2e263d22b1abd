//go:build unix

package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Freeze stops the process where it stands, as a machine does that swaps or a virtual one that is moved: it keeps its connections,
// and answers nobody until Thaw.
func (n *Node) Freeze(ctx context.Context) error {
	if err := n.signal(unix.SIGSTOP); err != nil {
		return err
	}
	n.setFrozen(true)
	return await(ctx, n.name+" stands still", func(context.Context) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
		if errors.Is(err, os.ErrNotExist) {
			return nil // a system without that; the signal is on its way
		}
		if _, state, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(state, "T") {
			return fmt.Errorf("its state is %.1s", state)
		}
		return err
	})
}

// Thaw lets a process that was frozen go on, and waits until it answers.
func (n *Node) Thaw(ctx context.Context) error {
	if err := n.signal(unix.SIGCONT); err != nil {
		return err
	}
	n.setFrozen(false)
	return n.awaitUp(ctx)
}
