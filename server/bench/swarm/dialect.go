package swarm

import (
	"fmt"

	"carillon/server/wire"
)

// kind is what a client received.
type kind uint8

const (
	partial  kind = iota // the rest has not come yet
	upgraded             // the server took the connection: time for the connect frame
	frame                // a frame of package wire, in the dialect's encoding
	answer               // the answer to a poll, which may hold frames
	warmed               // a heartbeat of the server's
	ignored              // something that the transport needs and the bench does not
	bye                  // the server says goodbye; the payload says why, for people
)

// manner is what the loop has to know of a transport.
type manner struct {
	encoding wire.Encoding
	path     string // over HTTP, where clients connect
	upgrades bool   // the server answers hello by itself, before the first frame
	// speaks says that clients send frames on their connection. Others neither beat nor acknowledge there: the server keeps the
	// line warm, and an acknowledgement is an errand.
	speaks bool
	asks   bool // clients poll: what they are answered they acknowledge with the next poll
}

// dialect is how the clients of one transport open, cut and speak. It keeps nothing of a client: the loop hands it what it
// needs. Everything it is given belongs to the loop, and is used before the call returns.
type dialect interface {
	manner() manner
	// hello appends what a client sends as soon as its socket stands.
	hello(dst []byte, c *credentials) []byte
	// connect appends what a client sends once it was upgraded, if anything.
	connect(dst []byte, c *credentials) []byte
	// cut takes the first thing off what was received, and returns how many bytes that took. opening tells a client that was not
	// upgraded yet.
	cut(b []byte, opening bool) (k kind, payload []byte, n int, err error)
	// say appends an encoded frame as a client sends it, where clients speak.
	say(dst, frame []byte) []byte
	// goodbye appends what a client sends before it goes. Where that is nothing, it ends its direction of the stream.
	goodbye(dst []byte) []byte
}

// credentials are what a client shows at its connect.
type credentials struct {
	host  string
	token string

	// Of polls.
	wait    int    // most seconds that one is held
	session uint64 // of the answer before; 0: there was none
	cursor  string // the same
}

// clientName is what clients call themselves.
const clientName = "carillon-bench"

// Transports are the names of all there are, WebSocket first.
var Transports = []string{"ws", "sse", "poll", "tcp"}

func dialectOf(transport string) (dialect, error) {
	switch transport {
	case "ws":
		return websocket{}, nil
	case "sse":
		return events{}, nil
	case "poll":
		return polls{}, nil
	case "tcp":
		return raw{}, nil
	}
	return nil, fmt.Errorf("swarm: there is no transport %q", transport)
}
