package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"carillon/server/push"
)

// source makes random frames, the same ones in each run.
type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 1))} }

// upTo returns a number from 0 to most, small or at the edge more often than chance.
func (s source) upTo(most uint64) uint64 {
	switch s.IntN(4) {
	case 0:
		return s.Uint64N(min(most, 300) + 1)
	case 1:
		return most - s.Uint64N(min(most, 3)+1)
	}
	return s.Uint64() >> s.IntN(64) % (most/2 + 1) // any length in bits
}

func (s source) u32() uint32          { return uint32(s.upTo(math.MaxUint32)) }
func (s source) pos() push.Position   { return push.Position(s.upTo(maxNumber)) }
func (s source) time() push.MilliTime { return push.MilliTime(s.upTo(maxNumber)) }
func (s source) id() push.MsgID       { return push.MsgID(1 + s.upTo(math.MaxInt64-1)) }
func (s source) slot() push.SlotKind  { return push.SlotKind(s.IntN(2)) }

var alphabet = []string{
	"a", "B", "7", " ", `"`, `\`, "/", "<", ">", "&", "\n", "\r", "\t", "\b", "\f", "\x00", "\x1f", "\x7f", "é", "\u2027",
	"\u2028", "\u2029", "\u202a", "\ufffd", "\U0001f514", "\uffff", "\U0010ffff", "{", "}", ":", ",", "u00", "null",
}

// text returns up to most bytes of UTF-8, at least one where least is.
func (s source) text(least, most int) string {
	var b strings.Builder
	for n := least + s.IntN(12); n > 0; n-- {
		c := alphabet[s.IntN(len(alphabet))]
		if b.Len()+len(c) <= most {
			b.WriteString(c)
		}
	}
	if b.Len() < least {
		return "x"
	}
	return b.String()
}

// value returns some JSON value without white space.
func (s source) value(depth int) string {
	switch n := s.IntN(8); {
	case n < 2 && depth > 0:
		parts := make([]string, s.IntN(4))
		for i := range parts {
			parts[i] = s.value(depth - 1)
			if n == 0 {
				parts[i] = s.quoted() + ":" + parts[i]
			}
		}
		if n == 0 {
			return "{" + strings.Join(parts, ",") + "}"
		}
		return "[" + strings.Join(parts, ",") + "]"
	case n == 3:
		return []string{"true", "false", "null"}[s.IntN(3)]
	case n == 4:
		return []string{"0", "-0", "1.50", "-2e+10", "3E-7", "12345678901234567890"}[s.IntN(6)]
	}
	return s.quoted()
}

func (s source) quoted() string { return string(appendString(nil, s.text(0, 100))) }

func (s source) message() *Message {
	m := &Message{Slot: push.NoSlot, Message: push.Message{
		ID: s.id(), Ref: s.text(0, push.MaxRef), CollapseKey: s.text(0, push.MaxCollapseKey), Created: s.time(),
	}}
	if s.IntN(3) > 0 {
		m.Persistent, m.Slot, m.Pos, m.Expires = true, s.slot(), s.pos(), s.time()
	}
	names := map[string]bool{}
	for range s.IntN(4) {
		names[s.text(1, 50)] = true
	}
	for n := range names {
		m.Headers = append(m.Headers, push.Header{Name: n, Value: s.text(0, 50)})
	}
	sortHeaders(m.Headers)
	switch s.IntN(4) {
	case 0:
		m.Kind, m.Body = push.BodyBinary, make([]byte, s.IntN(40))
		for i := range m.Body {
			m.Body[i] = byte(s.Uint32())
		}
	case 1, 2:
		m.Body = []byte(s.value(4))
	}
	return m
}

func (s source) frame(t Type) Frame {
	cursor := s.text(1, push.MaxCursorString)
	switch t {
	case TypeConnect:
		return &Connect{
			Version: 1 + uint32(s.upTo(math.MaxUint32-1)), Token: s.text(0, MaxToken),
			Cursor: s.text(0, push.MaxCursorString), Client: s.text(0, MaxClient),
			After: push.SessionEpoch(s.upTo(math.MaxUint64)),
		}
	case TypeWelcome:
		return &Welcome{
			Version: 1 + uint32(s.upTo(math.MaxUint32-1)), Session: push.SessionEpoch(s.upTo(math.MaxUint64)),
			Cursor: cursor, Own: Start(s.IntN(4)), Common: Start(s.IntN(4)), HeartbeatMillis: s.u32(),
			GraceMillis: s.u32(), FrameBytes: s.u32(), FramesPerSecond: s.u32(), Time: s.time(), Expires: s.time(),
		}
	case TypeMessage:
		return s.message()
	case TypeAck:
		return &Ack{Cursor: cursor}
	case TypeCursor:
		return &Cursor{Cursor: cursor, Reason: CursorReason(s.IntN(4))}
	case TypePing:
		return &Ping{}
	case TypePong:
		return &Pong{}
	case TypeGap:
		return &Gap{Slot: s.slot(), From: s.pos(), To: s.pos(), Reason: GapReason(s.IntN(3))}
	case TypeKick:
		return &Kick{
			Code: CloseCode(1 + s.upTo(math.MaxUint16-1)), Reason: s.text(0, 40), Detail: s.text(0, 40),
			By: push.DeviceID(s.text(0, 40)), On: s.text(0, 40),
		}
	case TypeGoaway:
		return &Goaway{
			Code: CloseCode(1 + s.upTo(math.MaxUint16-1)), Reason: s.text(0, 40), DelayMillis: s.u32(),
			Address: s.text(0, 40),
		}
	case TypeRecall:
		return &Recall{Slot: s.slot(), Pos: s.pos(), ID: s.id()}
	case TypeEvent:
		return &Event{Event: EventKind(1 + s.IntN(2)), ID: s.id(), Time: s.time()}
	case TypeRefresh:
		return &Refresh{Token: s.text(1, MaxToken), Expires: s.time()}
	case TypeTags:
		return &Tags{Join: s.tags(), Leave: s.tags(), Tags: s.tags()}
	case TypeError:
		return &Error{Code: s.text(1, 40), Detail: s.text(0, 40)}
	}
	panic("no frame of type " + strconv.Itoa(int(t)))
}

// tags draws some; tags hold no control characters, which texts do.
func (s source) tags() (tags []push.Tag) {
	for range s.IntN(4) {
		t := push.Tag(s.text(1, push.MaxTag))
		if t.Check() != nil {
			t = push.Tag(strings.Repeat("é", 1+s.IntN(push.MaxTag/2)))
		}
		tags = append(tags, t)
	}
	return tags
}

// decodeAny decodes as the side that may receive the frame, the server's where both may.
func decodeAny(enc Encoding, t Type, b []byte) (Frame, error) {
	if forms[t].from&byClient != 0 {
		return DecodeClient(enc, b)
	}
	return DecodeServer(enc, b)
}

func TestCodec_EveryFrameSurvivesBothEncodingsWithoutAlias(t *testing.T) {
	s := newSource(1)
	for ty := TypeConnect; ty <= TypeTags; ty++ {
		for range 400 {
			want := s.frame(ty)
			for _, enc := range []Encoding{JSON, Binary} {
				b := Append([]byte("before"), enc, want)
				if !bytes.HasPrefix(b, []byte("before")) {
					t.Fatal("Append changed what stood there")
				}
				b = b[len("before"):]
				got, err := decodeAny(enc, ty, b)
				if err != nil {
					t.Fatalf("%s, encoding %d: %v\n%q", ty, enc, err, b)
				}
				for i := range b {
					b[i] = '#' // a frame that aliases its input is not the same any more
				}
				if !same(got, want) {
					t.Fatalf("%s, encoding %d: got %+v, want %+v", ty, enc, got, want)
				}
			}
		}
	}
}

func TestAppendOut_WritesWhatAppendWrites(t *testing.T) {
	s := newSource(2)
	for range 1000 {
		m := s.message()
		shared := NewShared(&m.Message)
		if shared.Message() != &m.Message {
			t.Fatal("Message returned another message")
		}
		for _, enc := range []Encoding{JSON, Binary} {
			out := Out{Shared: shared, Slot: m.Slot, Pos: m.Pos}
			if got, want := AppendOut(nil, enc, &out), Append(nil, enc, m); !bytes.Equal(got, want) {
				t.Fatalf("shared: got %q, want %q", got, want)
			}
			out = Out{Frame: m}
			if got, want := AppendOut(nil, enc, &out), Append(nil, enc, m); !bytes.Equal(got, want) {
				t.Fatalf("frame: got %q, want %q", got, want)
			}
		}
	}
}

func TestAppendOut_MessageThatIsNotPersistentHasNoSlot(t *testing.T) {
	m := &push.Message{ID: 1, Created: 2, Expires: 3}
	out := Out{Shared: NewShared(m), Slot: push.Common, Pos: 4}
	got := string(AppendOut(nil, JSON, &out))
	if want := `{"type":"message","id":"1","time":2}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	f, err := DecodeServer(Binary, AppendOut(nil, Binary, &out))
	if want := (&Message{Slot: push.NoSlot, Message: push.Message{ID: 1, Created: 2}}); err != nil || !same(f, want) {
		t.Errorf("got %+v, %v, want %+v", f, err, want)
	}
}

// jsonMembers returns the members that a frame's JSON form has, worked out by reflection from the struct instead of by
// the encoder.
func jsonMembers(t *testing.T, f Frame) map[string]any {
	t.Helper()
	out := map[string]any{"type": f.Type().String()}
	names := map[string]string{
		"HeartbeatMillis": "heartbeat_ms", "GraceMillis": "grace_ms", "FrameBytes": "frame_bytes",
		"FramesPerSecond": "frames_per_second", "DelayMillis": "delay_ms",
	}
	always := []string{
		"version", "session", "own", "common", "heartbeat_ms", "grace_ms", "frame_bytes", "frames_per_second", "slot",
		"pos", "from", "to", "code", "id",
	}
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		name := names[v.Type().Field(i).Name]
		if name == "" {
			name = strings.ToLower(v.Type().Field(i).Name)
		}
		if v.Field(i).IsZero() && !slices.Contains(always, name) &&
			!(name == "reason" && v.Field(i).Kind() == reflect.Uint8) && !(name == "time" && f.Type() == TypeWelcome) {
			continue
		}
		switch x := v.Field(i).Interface().(type) {
		case push.MsgID, push.SessionEpoch:
			out[name] = fmt.Sprint(x)
		case fmt.Stringer:
			out[name] = x.String()
			if name == "slot" || name == "code" {
				out[name] = json.Number(strconv.FormatUint(v.Field(i).Uint(), 10))
			}
		case string:
			out[name] = x
		case push.DeviceID:
			out[name] = string(x)
		case []push.Tag:
			list := make([]any, len(x))
			for i, t := range x {
				list[i] = string(t)
			}
			out[name] = list
		default:
			out[name] = json.Number(fmt.Sprint(x))
		}
	}
	return out
}

func messageMembers(t *testing.T, m *Message) map[string]any {
	t.Helper()
	out := map[string]any{
		"type": "message", "id": m.ID.String(), "time": json.Number(strconv.FormatInt(int64(m.Created), 10)),
	}
	if m.Persistent {
		out["slot"] = json.Number(strconv.Itoa(int(m.Slot)))
		out["pos"] = json.Number(strconv.FormatUint(uint64(m.Pos), 10))
		if m.Expires != 0 {
			out["expires"] = json.Number(strconv.FormatInt(int64(m.Expires), 10))
		}
	}
	if m.Ref != "" {
		out["ref"] = m.Ref
	}
	if m.CollapseKey != "" {
		out["collapse_key"] = m.CollapseKey
	}
	if len(m.Headers) > 0 {
		hs := map[string]any{}
		for _, h := range m.Headers {
			hs[h.Name] = h.Value
		}
		out["headers"] = hs
	}
	if m.Kind == push.BodyBinary {
		out["body_base64"] = base64.StdEncoding.EncodeToString(m.Body)
	} else if len(m.Body) > 0 {
		out["body"] = parseJSON(t, m.Body)
	}
	return out
}

func parseJSON(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return v
}

func TestCodec_JSONIsWhatEncodingJSONReads(t *testing.T) {
	s := newSource(3)
	for ty := TypeConnect; ty <= TypeTags; ty++ {
		for range 300 {
			f := s.frame(ty)
			var want map[string]any
			if m, ok := f.(*Message); ok {
				want = messageMembers(t, m)
			} else {
				want = jsonMembers(t, f)
			}
			b := Append(nil, JSON, f)
			if !bytes.HasPrefix(b, []byte(`{"type":"`+ty.String()+`"`)) {
				t.Fatalf("type is not first in %s", b)
			}
			if got := parseJSON(t, b); !reflect.DeepEqual(got, any(want)) {
				t.Fatalf("%s: got %v, want %v", ty, got, want)
			}
		}
	}
}
