package gateway

import (
	"strings"

	"carillon/server/transport"
)

// addressesAt returns where clients of each transport find another server of which the origin is known, nil without one. Raw TCP
// has a port of its own, which nobody said: those clients come back where they were.
func addressesAt(origin string) map[transport.Kind]string {
	if origin == "" {
		return nil
	}
	origin = strings.TrimSuffix(origin, "/")
	return map[transport.Kind]string{
		transport.WebSocket: "ws" + strings.TrimPrefix(origin, "http") + "/connect", // wss for https
		transport.SSE:       origin + "/connect/sse",
		transport.LongPoll:  origin + "/connect/poll",
	}
}
