package register_test

import (
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

func TestEpochs(t *testing.T) {
	const now = push.MilliTime(1_800_000_000_000)
	day := push.MilliTime(24 * time.Hour / time.Millisecond)
	at := func(m push.MilliTime) push.SessionEpoch { return push.SessionEpoch(m) << register.EpochShift }
	for _, tc := range []struct {
		name        string
		seen, named push.SessionEpoch
		now         push.MilliTime
		want        push.SessionEpoch
	}{
		{"of the clock", 0, 0, now, at(now)},
		{"in a millisecond with others", at(now) + 4, 0, now, at(now) + 5},
		{"after the clock went back", at(now), 0, now - 1000, at(now) + 1},
		{"of a client that names an older one", 0, at(now - 5), now, at(now)},
		{"of a client that names one of a clock that was ahead", 0, at(now) + 7, now - 1000, at(now) + 8},
		{"of one that names the highest that was seen", at(now) + 7, at(now) + 7, now - 1000, at(now) + 8},
		{"of one that names less than was seen", at(now) + 7, at(now) + 2, now - 1000, at(now) + 8},
		{"of one that names what is a day ahead", 0, at(now + day), now, at(now)},
		{"of one that names the last there is", 0, 1<<64 - 1, now, at(now)},
		{"before 1970", 0, 0, -5, 1},
	} {
		var e register.Epochs
		e.See(tc.seen)
		if got := e.Next(tc.named, tc.now); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}
