package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

func TestClient_TagsAreChangedOnceASessionIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		joined, refused := make(chan []push.Tag, 1), make(chan string, 1)
		w.cfg.Tags = func(ts []push.Tag) { joined <- ts }
		w.cfg.Refused = func(e *wire.Error) { refused <- e.Code }
		w.start()
		asked := make(chan error, 1)
		go func() { asked <- w.client.ChangeTags(t.Context(), []push.Tag{"news.a"}, []push.Tag{"news.b"}) }()
		synctest.Wait()
		select {
		case err := <-asked:
			t.Fatalf("before the welcome: %v", err)
		default:
		}
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		f, ok := p.recv(t).(*wire.Tags)
		if err := <-asked; err != nil || !ok || len(f.Join) != 1 || f.Join[0] != "news.a" || len(f.Leave) != 1 || f.Leave[0] != "news.b" {
			t.Fatalf("sent %+v, %v", f, err)
		}
		p.send(&wire.Tags{Tags: []push.Tag{"news.a"}}, &wire.Error{Code: "tag_not_permitted"})
		if ts := <-joined; len(ts) != 1 || ts[0] != "news.a" {
			t.Errorf("told of %q", ts)
		}
		if code := <-refused; code != "tag_not_permitted" {
			t.Errorf("told of %q", code)
		}
		if err := w.stop(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}

func TestClient_TagsAreNotWaitedForLongerThanTheCallerWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.client.ChangeTags(ctx, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a session: %v", err)
		}
		p, _ := w.welcomed(cursorAt(1, 100, 200))
		p.shut.Store(true)
		if err := w.client.ChangeTags(t.Context(), []push.Tag{"a"}, nil); err == nil {
			t.Error("a request that was not written is no error")
		}
		p.end(errors.New("gone"))
		if err := w.stop(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}
