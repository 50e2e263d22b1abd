package bench

import (
	"context"
	"fmt"
)

// startBeside starts a server like the one that is measured, for attackers. What is done to it the other notices only by what is left of the
// machine. Users are named as those of the fleet are. stop ends it.
func (w *world) startBeside(ctx context.Context, s *Limits) (beside *world, stop func() error, err error) {
	cfg := w.cfg
	cfg.Data = ""
	srv, err := startServer(ctx, cfg, s.heartbeat(), s.serverFlags())
	if err != nil {
		return nil, nil, fmt.Errorf("the server beside: %w", err)
	}
	pub := newPublisher(srv)
	return &world{cfg: cfg, name: w.name, server: srv, fleet: w.fleet, pub: pub}, func() error {
		pub.close()
		return srv.stop()
	}, nil
}
