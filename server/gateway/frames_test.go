package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/wire"
)

// frames posts frames beside a session and returns the status and the code of a refusal.
func (n *testNode) frames(token, body string) (status int, code string) {
	n.t.Helper()
	req, err := http.NewRequest(http.MethodPost, urlOf(n.PublicAddr())+"/connect/frames", strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	var p struct{ Code string }
	if len(b) > 0 {
		if err := json.Unmarshal(b, &p); err != nil {
			n.t.Fatalf("%v in %q", err, b)
		}
	}
	return resp.StatusCode, p.Code
}

func (n *testNode) wantFrames(token, body string, status int, code string) {
	n.t.Helper()
	if got, why := n.frames(token, body); got != status || why != code {
		n.t.Errorf("%.40s was answered %d %s, want %d %s", body, got, why, status, code)
	}
}

func TestFrames_AcknowledgeForAStreamAndWithoutOne(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	token := n.token("alice", "phone")
	s := n.sse(token, "")
	s.caughtUp()
	first := n.publish("alice", "one")
	s.wantMessage(first)
	event := `{"type":"event","event":"displayed","id":"` + first + `"}`
	n.wantFrames(token, `[{"type":"ack","cursor":"`+s.last+`"},`+event+`,{"type":"ping"}]`, http.StatusNoContent, "")
	n.waitState(first, "phone", "acknowledged")
	s.want("pong")
	n.wantFrames(token, `{"type":"refresh","token":"`+n.token("alice", "phone")+`"}`, http.StatusNoContent, "")
	if e := s.want("refresh"); !strings.Contains(e.data, "expires") {
		t.Errorf("the stream tells of the new token %s, want its end", e.data)
	}

	second := n.publish("alice", "two")
	s.wantMessage(second)
	s.leave()
	eventually(t, networkPatience, func() bool { return n.room.Count() == 0 }, func() string { return "the session stays" })
	n.wantFrames(token, `[{"type":"ack","cursor":"`+s.last+`"},`+event+`]`, http.StatusNoContent, "")
	n.waitState(second, "phone", "acknowledged")
	n.wantFrames(token, `{"type":"refresh","token":"`+token+`"}`, http.StatusConflict, "no_session")
	n.wantFrames("nonsense", `{"type":"ping"}`, http.StatusUnauthorized, "token_refused")
	n.wantFrames(token, `{"type":"welcome"}`, http.StatusBadRequest, wire.CodeUnexpected)

	want := `carillon_room_events_total{event="displayed",product="shop"} 2` + "\n"
	if !strings.Contains(n.adminText("/metrics"), want) {
		t.Errorf("the metrics do not say %s", want)
	}
}

// Whoever is not let in hears the same word whatever it asks for: clients know what a close code asks of them, and no other.
func TestFrames_OfADisabledProductAreForbidden(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	if status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"disabled": true}); status != 200 {
		t.Fatalf("disable: %d %v", status, a)
	}
	n.wantFrames(n.token("alice", "phone"), `{"type":"ping"}`, http.StatusForbidden, wire.CloseForbidden.String())
}
