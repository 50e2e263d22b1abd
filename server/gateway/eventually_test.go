package gateway

import (
	"testing"
	"time"
)

// eventually polls until ok, for at most the given time.
func eventually(t *testing.T, within time.Duration, ok func() bool, why func() string) {
	t.Helper()
	deadline := time.After(within)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", within, why())
		case <-poll.C:
		}
	}
}
