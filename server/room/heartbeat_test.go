package room

import (
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

func TestHeartbeats_TheMostSpecificCounts(t *testing.T) {
	h := Heartbeats{
		{transport.TCP, "android"}: 4 * time.Minute,
		{transport.TCP, ""}:        3 * time.Minute,
		{"", "android"}:            2 * time.Minute,
		{"", "ios"}:                90 * time.Second,
		{transport.SSE, ""}:        25 * time.Second,
		{transport.LongPoll, "tv"}: 20 * time.Second,
	}
	beats, err := h.compile(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind     transport.Kind
		platform push.Platform
		want     time.Duration
	}{
		{transport.TCP, push.PlatformAndroid, 4 * time.Minute},
		{transport.TCP, push.PlatformIOS, 3 * time.Minute},
		{transport.WebSocket, push.PlatformAndroid, 2 * time.Minute},
		{transport.WebSocket, push.PlatformIOS, 90 * time.Second},
		{transport.WebSocket, push.PlatformWeb, time.Minute},
		{transport.SSE, push.PlatformAndroid, 25 * time.Second},
		{transport.LongPoll, push.PlatformAndroid, 55 * time.Second},
		{transport.LongPoll, push.PlatformTV, 20 * time.Second},
	} {
		if got := beats[numberOf(c.kind)][c.platform]; got != c.want {
			t.Errorf("%s on %v: got %v, want %v", c.kind, c.platform, got, c.want)
		}
	}
}

func TestHeartbeats_RefusesWhatNobodyCanKeep(t *testing.T) {
	for of, d := range map[HeartbeatOf]time.Duration{
		{"carrier pigeon", ""}:              time.Minute,
		{"other", ""}:                       time.Minute,
		{transport.TCP, "toaster"}:          time.Minute,
		{"", ""}:                            time.Minute,
		{transport.TCP, ""}:                 time.Millisecond,
		{transport.TCP, "web"}:              2 * time.Hour,
		{transport.LongPoll, ""}:            61 * time.Second,
		{transport.LongPoll, "web"}:         5 * time.Minute,
		{transport.Kind("websocket"), "tv"}: time.Minute,
	} {
		if _, err := (Heartbeats{of: d}).compile(time.Minute); err == nil {
			t.Errorf("%v for %v was taken", d, of)
		}
	}
}

// A million clients that came back in one second would beat in one second for ever.
func TestSession_ClientsOfOneMomentAreToldDifferentIntervals(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		tenths := make(map[int]int)
		const n = 200
		for i := range n {
			d := w.connect("r1", fmt.Sprintf("user%d/web/web", i), "")
			every := time.Duration(framesOf[*wire.Welcome](d)[0].HeartbeatMillis) * time.Millisecond
			if every > 30*time.Second || every < 27*time.Second {
				t.Fatalf("told an interval of %v, want 27 to 30 s", every)
			}
			tenths[int((every-27*time.Second)/(300*time.Millisecond))]++
		}
		if len(tenths) < 10 || tenths[0] > n/4 {
			t.Errorf("intervals by tenths of the spread: %v, want about as many in each", tenths)
		}
	})
}

// A kernel that gave up who does not read when the room does would decide by chance whether that client is slow or lost.
func TestRoom_KernelIsToldToWaitLongerThanTheRoomDoes(t *testing.T) {
	for _, c := range []Config{
		{}, {Grace: time.Second, WriteDeadline: 20 * time.Second}, {Grace: 20 * time.Second, WriteDeadline: time.Second},
	} {
		r := Room{cfg: c.withDefaults()}
		if got := r.Unconfirmed(); got < max(r.cfg.Grace, r.cfg.WriteDeadline)*5/4 {
			t.Errorf("grace %v, write deadline %v: the kernel is told %v", r.cfg.Grace, r.cfg.WriteDeadline, got)
		}
	}
}
