// Package bare is servers that do as little for a connect as can be done, for the bench to read ours beside: they take a WebSocket, hear one
// frame, answer with a welcome and hold the connection. Who it is they do not ask.
//
// # Place in the flow
//
// Package bench starts one as a process and has the same clients connect to it that connected to ours.
//
// # Invariants
//
//   - What is read and written for a client is as long as what our server reads and writes.
//   - A server keeps nothing, checks no token, and hears no heartbeat: it is there for as long as a measurement takes.
package bare

import (
	"context"
	"fmt"
	"io"
	"net"

	"carillon/server/push"
	"carillon/server/wire"
)

// Kinds are the kinds of server. Kernel is one thread with nothing but system calls. Library is net/http with the WebSockets of
// coder/websocket, which is what a server in Go has for a connection before it does anything with it.
const (
	Kernel  = "kernel"
	Library = "library"
)

// Serve listens on a port of this machine, says on w where, and serves until r ends. Connections that are open then end with the process.
func Serve(kind string, r io.Reader, w io.Writer) error {
	serve := map[string]func(context.Context, net.Listener) error{Kernel: serveKernel, Library: serveLibrary}[kind]
	if serve == nil {
		return fmt.Errorf("bare: there is no server of the kind %q", kind)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	defer l.Close()
	if _, err := fmt.Fprintln(w, l.Addr()); err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // it ends with r, which is the process's own
		_, _ = io.Copy(io.Discard, r) // whatever ends it
		cancel()
	}()
	if err := serve(ctx, l); ctx.Err() == nil {
		return fmt.Errorf("bare: %w", err)
	}
	return nil
}

// greeting is the frames that a client waits for: that it is welcome, and that nothing waits for it. They are as long as those of a client that
// was here before.
func greeting() (welcome, caughtUp []byte) {
	at := push.Place{Epoch: 1 << 50, Lineage: 1 << 50, Pos: 1 << 50}
	cursor := string(push.AppendCursor(nil, 1<<60, push.Cursor{push.Own: at, push.Common: at}))
	welcome = wire.Append(nil, wire.JSON, &wire.Welcome{
		Version: wire.Version, Session: 1 << 52, Cursor: cursor, HeartbeatMillis: 60_000, GraceMillis: 10_000, FrameBytes: 16 << 10,
		FramesPerSecond: 20, Time: 1 << 40, Expires: 1 << 40,
	})
	return welcome, wire.Append(nil, wire.JSON, &wire.Cursor{Cursor: cursor, Reason: wire.CursorCaughtUp})
}
