package swarm

import "fmt"

// kind is what a client received.
type kind uint8

const (
	partial  kind = iota // the rest has not come yet
	upgraded             // the server took the connection: time for the connect frame
	frame                // a frame of package wire, in JSON
	ignored              // something that the transport needs and the bench does not
	bye                  // the server says goodbye; the payload says why, for people
)

// dialect is how the clients of one transport open, cut and speak. It keeps nothing of a client: the loop hands it what it
// needs. Everything it is given belongs to the loop, and is used before the call returns.
type dialect interface {
	// hello appends what a client sends as soon as its socket stands.
	hello(dst []byte, c *credentials) []byte
	// connect appends what a client sends once it was upgraded.
	connect(dst []byte, c *credentials) []byte
	// cut takes the first thing off what was received, and returns how many bytes that took. opening tells a client that was not
	// upgraded yet.
	cut(b []byte, opening bool) (k kind, payload []byte, n int, err error)
	// text appends a frame, in JSON, as a client sends it.
	text(dst, frame []byte) []byte
	// goodbye appends what a client sends before it goes.
	goodbye(dst []byte) []byte
}

// credentials are what a client shows at its connect.
type credentials struct {
	host  string
	path  string
	token string
}

func dialectOf(transport string) (dialect, error) {
	if transport == "ws" {
		return websocket{}, nil
	}
	return nil, fmt.Errorf("swarm: there is no transport %q", transport)
}
