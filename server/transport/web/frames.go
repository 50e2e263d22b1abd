package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Poster takes frames that a client sends beside its session. *room.Room is one.
type Poster interface {
	// Post verifies the token and takes the frames of its device, or returns a *push.Error.
	Post(ctx context.Context, token string, frames []wire.Frame) error
}

// maxFrames is how many frames one request brings.
const maxFrames = 20

// Frames serves POST /connect/frames, by which clients of SSE and long-poll acknowledge, report events, ask whether anybody is
// there, renew their token, and join tags.
type Frames struct {
	poster Poster
	most   int64 // bytes of a body
}

// NewFrames returns the handler. A body has at most frameBytes, 0 for [transport.MaxFrame]: as much as one frame elsewhere.
func NewFrames(p Poster, frameBytes int) *Frames {
	if frameBytes == 0 {
		frameBytes = transport.MaxFrame
	}
	return &Frames{poster: p, most: int64(frameBytes)}
}

// ServeHTTP implements http.Handler.
func (h *Frames) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := h.serve(w, r); p != nil {
		p.Write(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func (h *Frames) serve(w http.ResponseWriter, r *http.Request) *Problem {
	if p := checkMethod(r, http.MethodPost); p != nil {
		return p
	}
	token, p := Bearer(r)
	if p != nil {
		return p
	}
	if r.ContentLength > h.most {
		return tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.most))
	if err != nil {
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			return tooLarge
		}
		return ProblemOf(push.Errorf(push.KindInvalid, wire.CodeMalformed, "the body was cut off"))
	}
	frames, err := decodeFrames(body)
	if err == nil {
		err = h.poster.Post(r.Context(), token, frames)
	}
	if err != nil {
		return ProblemOf(err)
	}
	return nil
}

var tooLarge = &Problem{
	Status: http.StatusRequestEntityTooLarge, Code: transport.CodeTooLarge, Detail: "the body is larger than a frame may be",
}

// decodeFrames reads one frame, or an array of them. All are good, or none is taken.
func decodeFrames(body []byte) ([]wire.Frame, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		f, err := wire.DecodeClient(wire.JSON, body)
		return []wire.Frame{f}, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil {
		return nil, malformed(err)
	}
	var frames []wire.Frame
	for dec.More() {
		if len(frames) == maxFrames {
			return nil, push.Errorf(push.KindInvalid, "too_many_frames", "at most %d frames are sent at once", maxFrames)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, malformed(err)
		}
		f, err := wire.DecodeClient(wire.JSON, raw)
		if err != nil {
			return nil, err
		}
		frames = append(frames, f)
	}
	if _, err := dec.Token(); err != nil {
		return nil, malformed(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformed(err)
	}
	return frames, nil
}

// malformed keeps what the decoder says, which quotes the body, for nobody but the log.
func malformed(err error) error {
	return &push.Error{
		Kind: push.KindInvalid, Code: wire.CodeMalformed, Detail: "the body is a frame, or an array of frames", Err: err,
	}
}
