package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// posted is a room that notes what it is given.
type posted struct {
	token  string
	frames []wire.Frame
	calls  int
	err    error
}

func (p *posted) Post(_ context.Context, token string, frames []wire.Frame) error {
	p.token, p.frames = token, frames
	p.calls++
	return p.err
}

func TestFrames_GivesTheRoomWhatWasSent(t *testing.T) {
	ack, event := &wire.Ack{Cursor: "1.2.3"}, &wire.Event{Event: wire.Clicked, ID: 1<<60 + 1, Time: 7}
	for body, want := range map[string][]wire.Frame{
		`{"type":"ack","cursor":"1.2.3"}`: {ack},
		` [{"type":"ack","cursor":"1.2.3"}, {"type":"ping"},{"type":"event","event":"clicked","id":"1152921504606846977","time":7}] `: {
			ack, &wire.Ping{}, event,
		},
		`[]`:                               nil,
		`{"type":"refresh","token":"new"}`: {&wire.Refresh{Token: "new"}},
		"[" + strings.Repeat(`{"type":"ping"},`, maxFrames-1) + `{"type":"ping"}]`: pings(maxFrames),
	} {
		room := &posted{}
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/connect/frames", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer secret")
		NewFrames(room, 0).ServeHTTP(w, r)
		if w.Code != http.StatusNoContent || w.Body.Len() != 0 {
			t.Errorf("%s: answered %d %s, want 204 and nothing", body, w.Code, w.Body)
		}
		if room.token != "secret" || !reflect.DeepEqual(room.frames, want) {
			t.Errorf("%s: the room got %v of %q, want %v", body, room.frames, room.token, want)
		}
	}
}

func pings(n int) []wire.Frame {
	fs := make([]wire.Frame, n)
	for i := range fs {
		fs[i] = &wire.Ping{}
	}
	return fs
}

func TestFrames_RefusesBeforeTheRoomIsAsked(t *testing.T) {
	event := func(id string) string { return `{"type":"event","event":"displayed","id":` + id + `}` }
	cases := []struct {
		name, method, auth, body string
		status                   int
		code                     string
	}{
		{"GET", "GET", "Bearer t", "", 405, "method_not_allowed"},
		{"no token", "POST", "", `{"type":"ping"}`, 401, "unauthenticated"},
		{"no body", "POST", "Bearer t", "", 400, "malformed_frame"},
		{"no JSON", "POST", "Bearer t", "ping", 400, "malformed_frame"},
		{"an array that does not end", "POST", "Bearer t", `[{"type":"ping"}`, 400, "malformed_frame"},
		{"something after the array", "POST", "Bearer t", `[{"type":"ping"}] []`, 400, "malformed_frame"},
		{"an array of numbers", "POST", "Bearer t", `[1]`, 400, "malformed_frame"},
		{"an array of arrays", "POST", "Bearer t", `[[{"type":"ping"}]]`, 400, "malformed_frame"},
		{"one bad frame among good ones", "POST", "Bearer t", `[{"type":"ping"},{"type":"ack"}]`, 400, "missing_field"},
		{"a server's frame", "POST", "Bearer t", `{"type":"welcome"}`, 400, "unexpected_frame"},
		{"a frame of tomorrow", "POST", "Bearer t", `{"type":"sing"}`, 400, "unknown_frame"},
		{"too many", "POST", "Bearer t", "[" + strings.Repeat(`{"type":"ping"},`, maxFrames) + `{"type":"ping"}]`, 400, "too_many_frames"},
		{"too large", "POST", "Bearer t", `{"type":"ping","x":"` + strings.Repeat("x", 16<<10) + `"}`, 413, "frame_too_large"},
		{"an event of an id that lost digits", "POST", "Bearer t", event("9007199254740993"), 400, "invalid_field"},
		{"an event of no message", "POST", "Bearer t", event(`"0"`), 400, "invalid_field"},
		{"an event of an id that no message can have", "POST", "Bearer t", event(`"9223372036854775808"`), 400, "invalid_field"},
		{"an event of another kind", "POST", "Bearer t", `{"type":"event","event":"eaten","id":"1"}`, 400, "invalid_field"},
	}
	for _, c := range cases {
		room := &posted{}
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "/connect/frames", strings.NewReader(c.body))
		if c.name == "too large" {
			r.ContentLength = -1 // it does not say so
		}
		if c.auth != "" {
			r.Header.Set("Authorization", c.auth)
		}
		NewFrames(room, 0).ServeHTTP(w, r)
		if w.Code != c.status || codeIn(w) != c.code || room.calls != 0 {
			t.Errorf("%s: answered %d %s, and the room was asked %d times; want %d %s and not once", c.name, w.Code, w.Body, room.calls,
				c.status, c.code)
		}
	}
}

func TestFrames_TellsWhatTheRoomSays(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		after  string
	}{
		{push.Errorf(push.KindUnauthenticated, "token_expired", "x"), 401, ""},
		{push.Errorf(push.KindForbidden, "forbidden", "x"), 403, ""},
		{push.Errorf(push.KindInvalid, "flood", "x"), 400, ""},
		{push.Errorf(push.KindConflict, "no_session", "x"), 409, ""},
		{&push.Error{Kind: push.KindUnavailable, Code: "overloaded", After: 2 * time.Second}, 503, "2"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/connect/frames", strings.NewReader(`{"type":"ping"}`))
		r.Header.Set("Authorization", "Bearer t")
		NewFrames(&posted{err: c.err}, 0).ServeHTTP(w, r)
		want := c.err.(*push.Error).Code
		if w.Code != c.status || codeIn(w) != want || w.Header().Get("Retry-After") != c.after {
			t.Errorf("%v: answered %d %s, Retry-After %q; want %d %s", c.err, w.Code, w.Body, w.Header().Get("Retry-After"), c.status, want)
		}
	}
}

func codeIn(w *httptest.ResponseRecorder) string {
	var p struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &p) // what is none has no code
	return p.Code
}

func FuzzFrames(f *testing.F) {
	for _, s := range []string{`{"type":"ping"}`, `[]`, `[{"type":"ack","cursor":"1.2"},{"type":"ping"}]`, `[`, ` [1]`, `[{}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		frames, err := decodeFrames(body)
		if err != nil {
			if e, ok := err.(*push.Error); !ok || e.Code == "" {
				t.Fatalf("the error %v has no code", err)
			}
			return
		}
		if len(frames) > maxFrames {
			t.Fatalf("%d frames were taken", len(frames))
		}
		// What was taken can be sent again, as an array, and says the same.
		again := []byte("[")
		for i, fr := range frames {
			if i > 0 {
				again = append(again, ',')
			}
			again = wire.Append(again, wire.JSON, fr)
		}
		second, err := decodeFrames(append(again, ']'))
		if err != nil || !reflect.DeepEqual(frames, second) {
			t.Fatalf("%v became %v (%v)", frames, second, err)
		}
	})
}
