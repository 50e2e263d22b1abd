package bench

import (
	"context"
	"testing"
	"time"
)

func TestEcho_EveryPingIsAnswered(t *testing.T) {
	p, err := newPlain(3)
	if err != nil {
		t.Fatal(err)
	}
	n, used, err := p.pings(t.Context(), time.Millisecond, 20*time.Millisecond)
	if err != nil || n != 20 || used <= 0 {
		t.Errorf("%d pings were answered in %v of processor, %v, want 20", n, used, err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

func TestEcho_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cpu, err := measureEcho(ctx, 2, time.Millisecond, time.Hour)
	if cpu != 0 || err != nil {
		t.Errorf("got %v, %v", cpu, err)
	}
}
