package ws

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/wire"
)

func TestAppendText_HeaderFitsEveryLength(t *testing.T) {
	// Bodies that carry the frame across both of the lengths at which its header grows. A ping is shorter than all.
	outs := []wire.Out{{Frame: &wire.Ping{}}}
	for n := range 200 {
		for _, size := range []int{n, 1<<16 - 200 + n} {
			m := &push.Message{ID: 1, Body: []byte(`"` + strings.Repeat("x", size) + `"`), Created: 1}
			outs = append(outs, wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot})
		}
	}
	var headers [3]int // frames with a header of each length
	for i := range outs {
		const before = "what stood there"
		payload := wire.AppendOut(nil, wire.JSON, &outs[i])
		want := append([]byte(before), 0x81)
		switch n := len(payload); {
		case n < 126:
			headers[0]++
			want = append(want, byte(n))
		case n < 1<<16:
			headers[1]++
			want = binary.BigEndian.AppendUint16(append(want, 126), uint16(n))
		default:
			headers[2]++
			want = binary.BigEndian.AppendUint64(append(want, 127), uint64(n))
		}
		want = append(want, payload...)
		if got := appendText([]byte(before), &outs[i]); !bytes.Equal(got, want) {
			t.Fatalf("frame of %d bytes: begins with % x, want % x", len(payload), got[:30], want[:30])
		}
	}
	if headers[0] == 0 || headers[1] == 0 || headers[2] == 0 {
		t.Errorf("frames by header: got %v, want some of each", headers)
	}
}
