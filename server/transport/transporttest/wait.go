package transporttest

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen before it fails. Nothing waits for it to pass.
const Patience = 30 * time.Second

// Get returns the channel's next value, or fails the test when none comes.
func Get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	select {
	case v := <-ch:
		return v
	case <-ctx.Done():
		t.Fatalf("waited for %s in vain", what)
		panic("unreachable")
	}
}

// Eventually waits until something is true that nobody announces, and lets the others run meanwhile.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(Patience); !ok(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatalf("%s: waited in vain", what)
		}
	}
}
