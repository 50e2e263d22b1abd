package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"carillon/server/push"
)

// readGolden reads one of the files that every implementation of the protocol replays.
func readGolden(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "api", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// fromSide is who sends a golden frame.
type fromSide string

func (s fromSide) decode(enc Encoding, b []byte) (Frame, error) {
	if s == "client" {
		return DecodeClient(enc, b)
	}
	return DecodeServer(enc, b)
}

// golden is an entry of frames.json.
type golden struct {
	Name      string
	Direction fromSide
	Frame     abstract
	JSON      string
	Binary    string
	Variants  []struct{ Note, JSON, Binary string }
}

// abstract is a frame's fields in the form that all languages share.
type abstract struct {
	Type            string
	Version         uint32
	Token, Cursor   string
	Client          string
	Session, After  string
	Own, Common     string
	HeartbeatMS     uint32 `json:"heartbeat_ms"`
	GraceMS         uint32 `json:"grace_ms"`
	FrameBytes      uint32 `json:"frame_bytes"`
	FramesPerSecond uint32 `json:"frames_per_second"`
	Time, Expires   push.MilliTime
	Slot            *push.SlotKind
	Pos, From, To   push.Position
	ID, Ref         string
	CollapseKey     string `json:"collapse_key"`
	Headers         [][2]string
	BodyText        *string `json:"body_text"`
	BodyHex         *string `json:"body_hex"`
	Event, Reason   string
	Code            json.RawMessage
	Detail, By, On  string
	DelayMS         uint32 `json:"delay_ms"`
	Address         string
	Join, Leave     []push.Tag
	Tags            []push.Tag
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame builds the struct, by tables of its own, so that a wrong name table is noticed.
func (a *abstract) frame(t testing.TB) Frame {
	t.Helper()
	starts := map[string]Start{"resumed": 0, "beginning": 1, "head": 2, "reset": 3}
	cursors := map[string]CursorReason{"caught_up": 0, "passed": 1, "goodbye": 2, "lineage": 3}
	gaps := map[string]GapReason{"limit": 0, "reset": 1, "lost": 2}
	events := map[string]EventKind{"displayed": 1, "clicked": 2}
	slot := push.NoSlot
	if a.Slot != nil {
		slot = *a.Slot
	}
	id, _ := strconv.ParseInt(a.ID, 10, 64)
	var code uint16
	if a.Type == "kick" || a.Type == "goaway" {
		if err := json.Unmarshal(a.Code, &code); err != nil {
			t.Fatal(err)
		}
	}
	switch a.Type {
	case "connect":
		after, _ := strconv.ParseUint(a.After, 10, 64) // 0 where there is none
		return &Connect{Version: a.Version, Token: a.Token, Cursor: a.Cursor, Client: a.Client, After: push.SessionEpoch(after)}
	case "welcome":
		session, err := strconv.ParseUint(a.Session, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return &Welcome{
			Version: a.Version, Session: push.SessionEpoch(session), Cursor: a.Cursor, Own: starts[a.Own],
			Common: starts[a.Common], HeartbeatMillis: a.HeartbeatMS, GraceMillis: a.GraceMS, FrameBytes: a.FrameBytes,
			FramesPerSecond: a.FramesPerSecond, Time: a.Time, Expires: a.Expires,
		}
	case "message":
		m := &Message{Slot: slot, Pos: a.Pos, Message: push.Message{
			ID: push.MsgID(id), Ref: a.Ref, CollapseKey: a.CollapseKey, Created: a.Time, Expires: a.Expires,
			Persistent: slot != push.NoSlot,
		}}
		for _, h := range a.Headers {
			m.Headers = append(m.Headers, push.Header{Name: h[0], Value: h[1]})
		}
		if a.BodyHex != nil {
			m.Kind, m.Body = push.BodyBinary, unhex(t, *a.BodyHex)
		} else if a.BodyText != nil {
			m.Body = []byte(*a.BodyText)
		}
		return m
	case "ack":
		return &Ack{Cursor: a.Cursor}
	case "cursor":
		return &Cursor{Cursor: a.Cursor, Reason: cursors[a.Reason]}
	case "ping":
		return &Ping{}
	case "pong":
		return &Pong{}
	case "gap":
		return &Gap{Slot: slot, From: a.From, To: a.To, Reason: gaps[a.Reason]}
	case "kick":
		return &Kick{
			Code: CloseCode(code), Reason: a.Reason, Detail: a.Detail, By: push.DeviceID(a.By), On: a.On,
		}
	case "goaway":
		return &Goaway{Code: CloseCode(code), Reason: a.Reason, DelayMillis: a.DelayMS, Address: a.Address}
	case "recall":
		return &Recall{Slot: slot, Pos: a.Pos, ID: push.MsgID(id)}
	case "event":
		return &Event{Event: events[a.Event], ID: push.MsgID(id), Time: a.Time}
	case "refresh":
		return &Refresh{Token: a.Token, Expires: a.Expires}
	case "tags":
		return &Tags{Join: a.Join, Leave: a.Leave, Tags: a.Tags}
	case "error":
		var s string
		if err := json.Unmarshal(a.Code, &s); err != nil {
			t.Fatal(err)
		}
		return &Error{Code: s, Detail: a.Detail}
	}
	t.Fatalf("no frame %q", a.Type)
	return nil
}

// same reports whether two frames say the same. A body of no bytes may be nil or not.
func same(a, b Frame) bool {
	if m, ok := a.(*Message); ok {
		n, ok := b.(*Message)
		if !ok || !bytes.Equal(m.Body, n.Body) {
			return false
		}
		x, y := *m, *n
		x.Body, y.Body = nil, nil
		return reflect.DeepEqual(x, y)
	}
	return reflect.DeepEqual(a, b)
}

func TestGolden_FramesAreWrittenToTheByteAndReadBack(t *testing.T) {
	var all []golden
	readGolden(t, "frames.json", &all)
	seen := map[Type]bool{}
	for _, g := range all {
		t.Run(g.Name, func(t *testing.T) {
			want := g.Frame.frame(t)
			seen[want.Type()] = true
			if got := string(Append(nil, JSON, want)); got != g.JSON {
				t.Errorf("JSON: got\n%s, want\n%s", got, g.JSON)
			}
			if got := hex.EncodeToString(Append(nil, Binary, want)); got != g.Binary {
				t.Errorf("binary: got\n%s, want\n%s", got, g.Binary)
			}
			read := func(what string, enc Encoding, b []byte) {
				got, err := g.Direction.decode(enc, b)
				if err != nil || !same(got, want) {
					t.Errorf("%s: got %+v, %v, want %+v", what, got, err, want)
				}
			}
			read("JSON", JSON, []byte(g.JSON))
			read("binary", Binary, unhex(t, g.Binary))
			for _, v := range g.Variants {
				if (v.JSON == "") == (v.Binary == "") {
					t.Fatalf("variant %q has one encoding", v.Note)
				}
				if v.JSON != "" {
					read(v.Note, JSON, []byte(v.JSON))
				} else {
					read(v.Note, Binary, unhex(t, v.Binary))
				}
			}
		})
	}
	for ty := TypeConnect; ty <= TypeTags; ty++ {
		if !seen[ty] {
			t.Errorf("no golden frame of type %s", ty)
		}
	}
}

func TestGolden_CutOffFramesAreMalformed(t *testing.T) {
	var all []golden
	readGolden(t, "frames.json", &all)
	for _, g := range all {
		for _, c := range []struct {
			enc Encoding
			b   []byte
		}{{JSON, []byte(g.JSON)}, {Binary, unhex(t, g.Binary)}} {
			for n := range c.b {
				_, err := g.Direction.decode(c.enc, c.b[:n])
				if got := codeOf(err); got != CodeMalformed {
					t.Errorf("%s, encoding %d, first %d bytes: got code %q, want %q", g.Name, c.enc, n, got, CodeMalformed)
				}
			}
		}
	}
}

func codeOf(err error) string {
	var e *push.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// refusal is an entry of invalid.json.
type refusal struct {
	Name      string
	Direction fromSide
	Code      string
	JSON      *string
	JSONHex   string `json:"json_hex"`
	Binary    *string
	Optional  bool
}

// input returns the encoding and the bytes to refuse.
func (r *refusal) input(t testing.TB) (Encoding, []byte) {
	switch {
	case r.JSON != nil:
		return JSON, []byte(*r.JSON)
	case r.Binary != nil:
		return Binary, unhex(t, *r.Binary)
	}
	return JSON, unhex(t, r.JSONHex)
}

func TestGolden_InvalidFramesAreRefusedByCodeAndNeverQuoted(t *testing.T) {
	var all []refusal
	readGolden(t, "invalid.json", &all)
	codes := map[string]bool{}
	for _, r := range all {
		t.Run(r.Name, func(t *testing.T) {
			codes[r.Code] = true
			enc, b := r.input(t)
			f, err := r.Direction.decode(enc, b)
			if f != nil {
				t.Errorf("got frame %+v, want none", f)
			}
			if got := codeOf(err); got != r.Code {
				t.Errorf("got code %q (%v), want %q", got, err, r.Code)
			}
			if push.KindOf(err) != push.KindInvalid {
				t.Errorf("got kind %d, want invalid", push.KindOf(err))
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes the input: %v", err)
			}
		})
	}
	for _, c := range []string{
		CodeMalformed, CodeUnknown, CodeUnexpected, CodeMissing, CodeInvalid, CodeTooLong,
	} {
		if !codes[c] {
			t.Errorf("no input for code %s", c)
		}
	}
}
