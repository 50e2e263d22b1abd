package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"carillon/server/push"
)

func TestDecode_FieldsOfAClientEndAtTheirLimit(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name  string
		limit int
		frame func(n int) Frame
	}{
		{"token of connect", MaxToken, func(n int) Frame { return &Connect{Version: 1, Token: long(n)} }},
		{"cursor of connect", push.MaxCursorString, func(n int) Frame { return &Connect{Version: 1, Cursor: long(n)} }},
		{"client of connect", MaxClient, func(n int) Frame { return &Connect{Version: 1, Client: long(n)} }},
		{"cursor of ack", push.MaxCursorString, func(n int) Frame { return &Ack{Cursor: long(n)} }},
		{"a tag", push.MaxTag, func(n int) Frame { return &Tags{Join: []push.Tag{"a", push.Tag(long(n))}} }},
		{"tags", push.MaxTags, func(n int) Frame { return &Tags{Leave: slices.Repeat([]push.Tag{"a"}, n)} }},
		{"token of refresh", MaxToken, func(n int) Frame { return &Refresh{Token: long(n)} }},
	} {
		for _, enc := range []Encoding{JSON, Binary} {
			if _, err := DecodeClient(enc, Append(nil, enc, c.frame(c.limit))); err != nil {
				t.Errorf("%s at its limit, encoding %d: %v", c.name, enc, err)
			}
			_, err := DecodeClient(enc, Append(nil, enc, c.frame(c.limit+1)))
			if got := codeOf(err); got != CodeTooLong {
				t.Errorf("%s beyond its limit, encoding %d: got code %q, want %q", c.name, enc, got, CodeTooLong)
			}
		}
	}
}

func TestDecode_LimitsCountTheTextAndNotItsEscapes(t *testing.T) {
	b := `{"type":"connect","version":1,"client":"` + strings.Repeat(`\u0061`, MaxClient) + `"}`
	f, err := DecodeClient(JSON, []byte(b))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.(*Connect).Client, strings.Repeat("a", MaxClient); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecode_NestingIsBounded(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	msg := func(body string) string { return `{"type":"message","id":"1","time":1,"body":` + body + `}` }
	for _, c := range []struct {
		name   string
		side   fromSide
		frame  string
		accept bool
	}{
		{"unknown lists at the limit", "client", `{"type":"ping","x":` + nest(maxPassedDepth) + `}`, true},
		{"unknown lists beyond it", "client", `{"type":"ping","x":` + nest(maxPassedDepth+1) + `}`, false},
		{"unknown objects at the limit", "client", `{"type":"ping","x":` + objects(maxPassedDepth) + `}`, true},
		{"unknown objects beyond it", "client", `{"type":"ping","x":` + objects(maxPassedDepth+1) + `}`, false},
		{"a body from a client", "client", `{"type":"ping","body":` + nest(maxPassedDepth+1) + `}`, false},
		{"a body at the limit", "server", msg(nest(MaxBodyDepth)), true},
		{"a body beyond it", "server", msg(nest(MaxBodyDepth + 1)), false},
		{"a member of a body named body", "server", `{"type":"ping","x":{"body":` + nest(maxPassedDepth) + `}}`, false},
		{"a million levels", "server", msg(strings.Repeat("[", 1000000)), false},
	} {
		_, err := c.side.decode(JSON, []byte(c.frame))
		if c.accept && err != nil || !c.accept && codeOf(err) != CodeMalformed {
			t.Errorf("%s: got %v, want accepted: %v", c.name, err, c.accept)
		}
	}
	for _, c := range []struct{ levels, errors int }{{MaxBodyDepth, 0}, {MaxBodyDepth + 1, 1}} {
		m := &Message{Slot: push.NoSlot, Message: push.Message{ID: 1, Body: []byte(nest(c.levels))}}
		if _, err := DecodeServer(Binary, Append(nil, Binary, m)); (err != nil) != (c.errors == 1) {
			t.Errorf("binary, %d levels: got %v", c.levels, err)
		}
	}
}

func TestDecode_AHeaderCountThatLiesAllocatesLittle(t *testing.T) {
	b := []byte{byte(TypeMessage), byte(push.NoSlot), 1, 1, 0, 0, 0, 0}
	b = binary.AppendUvarint(b, math.MaxUint32)
	b = append(b, 1, 'a', 0)
	if n := testing.AllocsPerRun(10, func() { _, _ = DecodeServer(Binary, b) }); n > 10 {
		t.Errorf("got %v allocations", n)
	}
}

func TestDecode_ACountOfTagsThatLiesAllocatesLittle(t *testing.T) {
	b := binary.AppendUvarint([]byte{byte(TypeTags)}, math.MaxUint64)
	b = append(b, 1, 'a')
	if n := testing.AllocsPerRun(10, func() { _, _ = DecodeClient(Binary, b) }); n > 10 {
		t.Errorf("got %v allocations", n)
	}
}

// sample is an ordinary message to many.
func sample() *push.Message {
	return &push.Message{
		ID: 7238556057600002, Ref: "order-7", CollapseKey: "orders", Created: 1767225660123, Expires: 1767830460123,
		Persistent: true, Headers: []push.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}},
		Body: []byte(`{"text":"` + strings.Repeat("hello ", 20) + `"}`),
	}
}

func TestSize_EstimatesFromAboveAndNotFarAbove(t *testing.T) {
	m := sample()
	bin := sample()
	bin.Kind, bin.Body = push.BodyBinary, bytes.Repeat([]byte{1}, 1000)
	outs := []Out{
		{Shared: NewShared(m), Pos: maxNumber}, {Shared: NewShared(bin), Pos: maxNumber},
		{Shared: NewShared(&push.Message{ID: math.MaxInt64, Body: make([]byte, 64<<10)}), Slot: push.NoSlot},
		{Frame: &Message{Slot: push.Common, Pos: maxNumber, Message: *m}},
	}
	s := newSource(6)
	for ty := TypeConnect; ty <= TypeTags; ty++ {
		if ty != TypeMessage {
			outs = append(outs, Out{Frame: plain(s.frame(ty))})
		}
	}
	for _, o := range outs {
		got, wire := o.Size(), len(AppendOut(nil, JSON, &o))
		if got < wire || got > wire+200 {
			t.Errorf("%+v: got %d, written are %d", o, got, wire)
		}
		if short := len(AppendOut(nil, Binary, &o)); got < short {
			t.Errorf("%+v: got %d, written are %d in binary", o, got, short)
		}
	}
	if got, want := NewShared(m).Size(), (&Out{Shared: NewShared(m)}).Size(); got != want {
		t.Errorf("Shared says %d, Out %d", got, want)
	}
}

// plain replaces texts that need escapes, of which an estimate knows nothing.
func plain(f Frame) Frame {
	switch f := f.(type) {
	case *Connect:
		f.Token, f.Cursor, f.Client = strings.Repeat("t", 300), "1.2.3", "c"
	case *Welcome:
		f.Cursor = strings.Repeat("1", push.MaxCursorString)
	case *Ack:
		f.Cursor = "1.2.3"
	case *Cursor:
		f.Cursor = "1.2.3"
	case *Kick:
		f.Reason, f.Detail, f.By, f.On = "replaced", "d", "phone", "android"
	case *Goaway:
		f.Reason, f.Address = "going_away", "wss://example.org"
	case *Refresh:
		f.Token = strings.Repeat("t", 300)
	case *Error:
		f.Code, f.Detail = "malformed_frame", "d"
	}
	return f
}

func TestShared_ManyAtOnceShareOneEncoding(t *testing.T) {
	for _, enc := range []Encoding{JSON, Binary} {
		for range 20 {
			// Large, so that making the tail takes long enough for the others to arrive meanwhile.
			s := NewShared(&push.Message{ID: 1, Kind: push.BodyBinary, Body: make([]byte, 1<<20)})
			const n = 8
			var tails [n]*byte
			var all sync.WaitGroup
			start := make(chan struct{})
			for i := range n {
				all.Go(func() {
					<-start
					tails[i] = &s.tail(enc)[0]
				})
			}
			close(start)
			all.Wait()
			for i := range tails {
				if tails[i] != tails[0] {
					t.Fatal("the tail was made more than once")
				}
			}
		}
	}
}
