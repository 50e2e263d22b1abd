package swarm

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"carillon/server/wire"
)

// events is the dialect of Server-Sent Events: one request, whose answer does not end. Clients say nothing on it.
type events struct{}

func (events) manner() manner {
	return manner{encoding: wire.JSON, path: "/connect/sse", upgrades: true}
}

func (e events) hello(dst []byte, c *credentials) []byte {
	dst = appendRequest(dst, "GET", e.manner().path+"?client="+clientName+"&version="+strconv.Itoa(wire.Version), c)
	return append(dst, "Accept: text/event-stream\r\n\r\n"...)
}

func (events) connect(dst []byte, _ *credentials) []byte { return dst }

var (
	eventEnd = []byte("\n\n")
	dataName = []byte("data: ")
)

func (events) cut(b []byte, opening bool) (kind, []byte, int, error) {
	if opening {
		header, err := cutHeader(b, "200 ")
		if header == nil {
			return partial, nil, 0, err
		}
		return upgraded, nil, len(header), nil
	}
	i := bytes.Index(b, eventEnd)
	if i < 0 {
		if len(b) > maxFrame {
			return partial, nil, 0, fmt.Errorf("the server sent an event of more than %d bytes", maxFrame)
		}
		return partial, nil, 0, nil
	}
	event, n := b[:i], i+len(eventEnd)
	if bytes.HasPrefix(event, []byte(":")) {
		return warmed, nil, n, nil
	}
	for len(event) > 0 { // the data is on one line, the last
		line, rest, _ := bytes.Cut(event, []byte{'\n'})
		if payload, ok := bytes.CutPrefix(line, dataName); ok {
			return frame, payload, n, nil
		}
		event = rest
	}
	return partial, nil, 0, errors.New("the server sent an event without data")
}

func (events) say(dst, _ []byte) []byte { return dst }

func (events) goodbye(dst []byte) []byte { return dst }
