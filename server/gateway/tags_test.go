package gateway

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// These tests mark users and devices through the REST interface of a whole node, tokens and real clients, and look at what
// live sessions have.

// tagger is a client that joins tags.
type tagger struct {
	*client.Client
	told chan string // what tags and error frames say
	done chan error
	stop context.CancelFunc
}

func (n *testNode) tagger(over transport.Kind, token string) *tagger {
	n.t.Helper()
	url, dialer := n.address(over)
	g := &tagger{told: make(chan string, 10), done: make(chan error, 1)}
	var err error
	g.Client, err = client.New(client.Config{
		URLs: []string{url}, Dialer: dialer, Tokens: client.StaticToken(token), Storage: &client.Memory{},
		Callbacks: client.Callbacks{
			Message: func(context.Context, *wire.Message) error { return nil },
			Tags:    func(ts []push.Tag) { g.told <- fmt.Sprint(ts) },
			Refused: func(e *wire.Error) { g.told <- e.Code },
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	var ctx context.Context
	ctx, g.stop = context.WithCancel(context.Background())
	n.t.Cleanup(g.stop)
	go func() { g.done <- g.Run(ctx) }()
	return g
}

func (g *tagger) leave(t *testing.T) {
	t.Helper()
	g.stop()
	if err := <-g.done; err != nil {
		t.Errorf("the client ended with %v", err)
	}
}

// ask changes tags and holds the answer against want.
func (g *tagger) ask(t *testing.T, join, leave []push.Tag, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := g.ChangeTags(ctx, join, leave); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-g.told:
		if got != want {
			t.Errorf("joining %q and leaving %q was answered with %s, want %s", join, leave, got, want)
		}
	case <-ctx.Done():
		t.Fatal("no answer")
	}
}

// sessionTags returns the tags that the session of alice's device has.
func (n *testNode) sessionTags(device string) (tags []string) {
	n.t.Helper()
	status, a := n.rest("GET", "/v1/users/alice", nil)
	if status != 200 {
		n.t.Fatalf("looking at alice: %d %v", status, a)
	}
	for _, d := range a["devices"].([]any) {
		d := d.(map[string]any)
		if s, ok := d["session"].(map[string]any); ok && d["device"] == device {
			for _, tag := range s["tags"].([]any) {
				tags = append(tags, tag.(string))
			}
		}
	}
	return tags
}

func (n *testNode) wantTags(device string, want ...string) {
	n.t.Helper()
	if got := n.sessionTags(device); !slices.Equal(got, want) {
		n.t.Errorf("the session of %s has the tags %q, want %q", device, got, want)
	}
}

func (n *testNode) mark(method, path string, body map[string]any) map[string]any {
	n.t.Helper()
	status, a := n.rest(method, path, body)
	if status != 200 {
		n.t.Fatalf("%s %s: %d %v", method, path, status, a)
	}
	return a
}

func (n *testNode) taggedToken(device string) string {
	c := claims()
	c.Device, c.Tags, c.TagPatterns = push.DeviceID(device), []string{"from-token"}, []string{"news.*"}
	return n.mint(n.sign, c)
}

func TestGateway_TagsOfTokenServerAndClientAreUnitedAndOutliveTheNode(t *testing.T) {
	fs := vfs.NewMem()
	n := start(t, fs)
	n.setUp()
	n.mark("PUT", "/v1/users/alice/tags", map[string]any{"tags": []string{"vip"}}) // before she has a device
	g := n.tagger(transport.WebSocket, n.taggedToken("phone"))
	g.ask(t, []push.Tag{"news.sport", "news.tech"}, nil, "[news.sport news.tech]")
	n.wantTags("phone", "from-token", "news.sport", "news.tech", "vip")
	g.ask(t, []push.Tag{"vip"}, nil, "tag_not_permitted")
	g.ask(t, nil, []push.Tag{"news.tech"}, "[news.sport]")

	// What the product's server changes, the live session has when the answer comes.
	n.mark("PATCH", "/v1/users/alice/devices/phone/tags", map[string]any{"add": []string{"kiosk"}})
	n.wantTags("phone", "from-token", "kiosk", "news.sport", "vip")
	a := n.mark("POST", "/v1/tags/batch", map[string]any{"changes": []any{
		map[string]any{"user": "alice", "set": []string{"gold"}},
		map[string]any{"user": "alice", "device": "phone", "remove": []string{"kiosk"}},
		map[string]any{"user": "bob", "device": "none", "add": []string{"x"}},
	}})
	if s := fmt.Sprint(a["results"].([]any)[2].(map[string]any)["status"]); s != "404" {
		t.Errorf("a device that is not there: status %s", s)
	}
	n.wantTags("phone", "from-token", "gold", "news.sport")
	g.leave(t)
	n.stop()

	again := start(t, fs)
	again.sign, again.key = n.sign, n.key
	g = again.tagger(transport.WebSocket, again.taggedToken("phone"))
	g.ask(t, nil, nil, "[news.sport]")
	again.wantTags("phone", "from-token", "gold", "news.sport")
	g.leave(t)
}

func TestGateway_ClientsJoinTagsOverEveryTransport(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	for _, over := range overs {
		device := "on-" + string(over)
		g := n.tagger(over, n.taggedToken(device))
		g.ask(t, []push.Tag{"news.a"}, nil, "[news.a]")
		g.ask(t, []push.Tag{"other"}, nil, "tag_not_permitted")
		n.wantTags(device, "from-token", "news.a")
		g.leave(t)
	}
	n.wantFrames(n.taggedToken("nowhere"), `{"type":"tags","join":["news.a"]}`, 409, "no_session")
}
