package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

type backupCmd struct {
	adminFlags
	Directory string `arg:"" help:"Directory to make, on the gateway's machine."`
}

// Help is shown under --help.
func (backupCmd) Help() string {
	return `Writes a consistent copy of the embedded store while the server goes on working. To restore, start a server on a
copy of that directory.

Example:

    carillon backup ./backup-1`
}

// Run executes the command.
func (c *backupCmd) Run(ctx context.Context, a *app) error {
	dir, err := filepath.Abs(c.Directory)
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	t.patience = time.Hour
	b, err := t.call(ctx, http.MethodPost, "/admin/v1/backup", map[string]string{"directory": dir}, nil)
	if err != nil {
		return err
	}
	var done struct {
		TookMillis int64 `json:"took_ms"`
	}
	if err := json.Unmarshal(b, &done); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	a.print("wrote %s in %v", dir, time.Duration(done.TookMillis)*time.Millisecond)
	return nil
}
