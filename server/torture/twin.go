package torture

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"carillon/server/client"
	"carillon/server/history"
	"carillon/server/wire"
)

// errSeen ends a twin with its first message, before it could acknowledge it in the name of the device.
var errSeen = errors.New("a twin saw a message")

// twins has devices connect a second time now and then, from somewhere else and without what they have stored. The newer session takes
// the place of the older one, which gets nothing more.
func (w *world) twins(ctx context.Context, rng *rand.Rand) {
	for sleep(ctx, between(rng, 3*time.Second, 10*time.Second)) {
		d := w.devices[rng.IntN(len(w.devices))]
		if w.twin(ctx, d) {
			w.twinned.Add(1)
		}
	}
}

// twin connects in the name of a device for a moment, and reports whether it was welcomed.
func (w *world) twin(ctx context.Context, d *device) (welcomed bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	t := &http.Transport{}
	defer t.CloseIdleConnections()
	var session uint64
	c, err := client.New(client.Config{
		URLs: []string{"ws://" + w.balancer + "/connect"}, Tokens: w.token(d.name), Storage: &client.Memory{},
		Dialer: &client.WebSocket{Client: &http.Client{Transport: t}}, AckEvery: time.Hour,
		Callbacks: client.Callbacks{
			Message: func(_ context.Context, m *wire.Message) error {
				w.seen.Add(history.Record{Kind: history.Peek, Device: d.name, Session: session, ID: m.ID.String(), Body: string(m.Body)})
				return errSeen
			},
			Status: func(s client.Status) {
				switch s.Phase {
				case client.Online:
					welcomed, session = true, uint64(s.Welcome.Session)
					w.seen.Add(history.Record{Kind: history.Online, Device: d.name, Session: session})
				case client.Waiting:
					cancel()
				}
			},
		},
	})
	if err != nil {
		w.breach("client", "a twin of %v: %v", d.name, err)
		return false
	}
	_ = c.Run(ctx) // it is replaced in its turn, saw something, or its time is over
	return welcomed
}
