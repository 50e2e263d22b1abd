package torture

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"carillon/server/history"
)

// kicker ends sessions of devices now and then, by the REST interface, and notes from when on they must be silent.
func (w *world) kicker(ctx context.Context, rng *rand.Rand) {
	t := &http.Transport{}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t}
	for sleep(ctx, between(rng, 2*time.Second, 6*time.Second)) {
		d := w.devices[rng.IntN(len(w.devices))]
		session := d.session.Load() // it is there now, or has ended
		var a struct {
			Status  string    `json:"status"`
			Certain time.Time `json:"certain"`
		}
		status := w.request(ctx, c, http.MethodPost, w.center(rng)+"/v1/users/"+d.name.User+"/kick", w.access.APIKey, "",
			map[string]any{"device": d.name.Device}, &a)
		if status != http.StatusOK || session == 0 {
			continue
		}
		if a.Status == "pending" && !sleep(ctx, time.Until(a.Certain)) {
			continue
		}
		w.seen.Add(history.Record{Kind: history.Off, Device: d.name, Session: session})
		w.kicks.Add(1)
	}
}
