package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"carillon/server/bench/child"
	"carillon/server/bench/swarm"
)

// bareServer is a server of package bare with clients of its own. Those of ours stay where they are meanwhile: what they do is in no figure of
// this one's process.
type bareServer struct {
	world *world // to connect in; what it sets nobody reads
	stop  func() error
}

// startBare starts a server of that kind and clients that are like the scenario's.
func (w *world) startBare(ctx context.Context, kind string, s Scenario) (b bareServer, err error) {
	p, err := child.Talk(append(append([]string{w.cfg.Executable}, w.cfg.Bare...), kind), w.cfg.Env)
	if err != nil {
		return b, err
	}
	stop := func() error { return errors.Join(p.Stop(), p.Stdout.Close()) }
	address, err := firstLine(p.Stdout)
	if err != nil {
		return b, errors.Join(fmt.Errorf("a bare server says nothing: %w", err), stop())
	}
	f := w.server.file
	fleet, err := swarm.Start(ctx, swarm.FleetConfig{
		Processes: w.cfg.Workers, Command: append([]string{w.cfg.Executable}, w.cfg.Clients...), Env: w.cfg.Env,
		Setup:      swarm.Setup{Transport: s.transport(), Address: address, Product: f.Product, KeyID: f.KeyID, Key: f.Key, Users: "bare-"},
		Everywhere: w.news.everywhere, Arrived: w.news.arrived, Connected: func(int) {}, Lost: func(error) {}, // the next command tells
	})
	if err != nil {
		return b, errors.Join(err, stop())
	}
	b.world = &world{cfg: w.cfg, name: w.name, server: &server{pid: p.PID()}, fleet: fleet}
	b.stop = func() error {
		fleet.Stop()
		return stop()
	}
	return b, nil
}

func firstLine(f *os.File) (string, error) {
	line, err := bufio.NewReader(f).ReadString('\n')
	return strings.TrimSpace(line), err
}
