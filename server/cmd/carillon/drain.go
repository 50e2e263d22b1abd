package main

import (
	"context"
	"net/http"
	"time"
)

type drainCmd struct {
	adminFlags
	Spread  time.Duration `placeholder:"5s" help:"Over how long clients come back, in whole seconds up to 1h; drain.spread of the configuration."`
	Address *string       `placeholder:"URL" help:"Where they come back, as in https://b.example.com; empty is where they were; drain.address of the configuration."`
}

// Help is shown under --help.
func (drainCmd) Help() string {
	return `Has a node say goodbye to its clients, spread over a while, and take no new ones: do it before you stop a node, with others
there to take them. The command is done when draining has begun; /readyz of the node fails from then on. Each client continues
where it was. To undo it, restart the node.

Example:

    carillon drain --spread 60s --address https://b.example.com`
}

// Run executes the command.
func (c *drainCmd) Run(ctx context.Context, a *app) error {
	if c.Spread < 0 || c.Spread%time.Second != 0 {
		return usagef("--spread is a number of whole seconds, as in 30s or 2m")
	}
	body := make(map[string]any)
	if c.Spread > 0 {
		body["spread_seconds"] = int64(c.Spread / time.Second)
	}
	if c.Address != nil {
		body["address"] = *c.Address
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodPost, "/admin/v1/drain", body, nil); err != nil {
		return err
	}
	a.print("the node drains")
	return nil
}
