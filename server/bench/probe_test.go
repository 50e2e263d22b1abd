package bench

import (
	"errors"
	"testing"
	"time"
)

func TestProbes_WhatOneOfThemFailsForIsTold(t *testing.T) {
	ps := new(probes)
	ps.pings.Add(time.Millisecond)
	if pings, err := ps.take(); pings.N != 1 || err != nil {
		t.Errorf("got %d pings, %v", pings.N, err)
	}
	cut := errors.New("cut")
	ps.err = cut
	if pings, err := ps.take(); pings.N != 0 || !errors.Is(err, cut) {
		t.Errorf("got %d pings, %v", pings.N, err)
	}
}
