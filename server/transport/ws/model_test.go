package ws

import (
	"encoding/binary"
	"unicode/utf8"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// outcome is what has to come of the bytes that a client sends after its handshake.
type outcome struct {
	frames []wire.Frame
	alive  int      // control frames outside messages
	pings  []string // their payloads

	// The codes of refusals: of frames of an unknown type, and then of what ended the stream, if anything did.
	refusals []string
	refused  bool     // the last refusal is final
	allowed  []string // codes that it may have instead: what is wrong in several ways is refused for any of them

	said   bool   // the client said goodbye,
	answer string // to which this payload answers

	undecided bool // the stream ends inside a frame that is wrong already, and need not be refused yet
}

type limits struct{ first, later int }

func limitsOf(cfg Config) limits {
	l := limits{cfg.FirstFrameBytes, cfg.FrameBytes}
	if l.first == 0 {
		l.first = transport.MaxFirstFrame
	}
	if l.later == 0 {
		l.later = transport.MaxFrame
	}
	return l
}

// model is RFC 6455 read a second time: the plainest decoder that knows all of a stream at once. The tables of streams
// hold it to what they say, and it says what has to come of streams that nobody wrote.
func model(b []byte, l limits) outcome {
	var o outcome
	var message []byte
	inside, limit := false, l.first
	refuse := func(codes ...string) outcome {
		o.refusals, o.refused, o.allowed = append(o.refusals, codes[0]), true, codes
		return o
	}
	for len(b) > 0 {
		h := headerOf(b)
		if codes := h.wrong(limit); len(codes) > 0 {
			if h.complete {
				return refuse(append(codes, h.misplaced(inside, limit)...)...)
			}
			o.undecided = true
			return o
		}
		codes := h.misplaced(inside, limit-len(message))
		if !h.complete || uint64(len(b)-h.size) < h.length {
			o.undecided = len(codes) > 0
			return o
		}
		if len(codes) > 0 {
			return refuse(codes...)
		}
		payload := append([]byte(nil), b[h.size:][:h.length]...)
		for i := range payload {
			payload[i] ^= h.key[i%4]
		}
		b = b[h.size+len(payload):]
		switch h.op {
		case opPing, opPong:
			if !inside {
				o.alive++
			}
			if h.op == opPing {
				o.pings = append(o.pings, string(payload))
			}
			continue
		case opClose:
			switch {
			case len(payload) == 1, len(payload) > 1 && !mayBeSent(binary.BigEndian.Uint16(payload)):
				return refuse(CodeProtocol)
			case len(payload) > 1 && !utf8.Valid(payload[2:]):
				return refuse(CodeNotUTF8)
			}
			o.said, o.answer = true, string(payload[:min(2, len(payload))])
			return o
		}
		message = append(message, payload...)
		if inside = !h.fin; inside {
			continue
		}
		if !utf8.Valid(message) {
			return refuse(CodeNotUTF8)
		}
		f, err := wire.DecodeClient(wire.JSON, message)
		switch e, _ := err.(*push.Error); {
		case err == nil:
			o.frames = append(o.frames, f)
		case e.Code == wire.CodeUnknown:
			o.refusals = append(o.refusals, e.Code)
		default:
			return refuse(e.Code)
		}
		message, limit = message[:0], l.later
	}
	return o
}

// mayBeSent reports whether section 7.4 and the registry that it founds allow a code in a close frame.
func mayBeSent(code uint16) bool {
	switch code {
	case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}

type modelHeader struct {
	fin, masked bool
	reserved    byte
	op          opcode
	length      uint64
	key         [4]byte
	size        int
	complete    bool
}

// headerOf reads as much of a frame's header as there is.
func headerOf(b []byte) modelHeader {
	h := modelHeader{fin: b[0]&0x80 != 0, reserved: b[0] & 0x70, op: opcode(b[0] & 0x0f), masked: true, size: 2}
	if len(b) < 2 {
		return h
	}
	h.masked = b[1]&masked != 0
	h.length = uint64(b[1] &^ masked)
	extended := map[uint64]int{126: 2, 127: 8}[h.length]
	if extended > 0 {
		h.length = 0
		if len(b) < 2+extended {
			return h
		}
		for _, d := range b[2 : 2+extended] {
			h.length = h.length<<8 | uint64(d)
		}
	}
	h.size += extended
	if !h.masked {
		h.complete = true
		return h
	}
	h.complete = len(b) >= h.size+4
	copy(h.key[:], b[h.size:])
	h.size += 4
	return h
}

// wrong returns the codes for which a header may be refused that no frame has, none if there are such frames. limit is that
// of the whole message.
func (h modelHeader) wrong(limit int) (codes []string) {
	control := h.op >= opClose
	switch {
	case h.reserved != 0, !h.masked, h.length >= 1<<63, h.op > opBinary && h.op < opClose, h.op > opPong,
		control && (!h.fin || h.length > 125):
		codes = append(codes, CodeProtocol)
	}
	if !control && h.length > uint64(limit) {
		codes = append(codes, transport.CodeTooLarge)
	}
	return codes
}

// misplaced returns the codes for which a frame may be refused that stands where it must not. That may show when it is
// whole; left is what the limit still admits of its message.
func (h modelHeader) misplaced(inside bool, left int) (codes []string) {
	if h.op == opContinue && !inside || (h.op == opText || h.op == opBinary) && inside {
		codes = append(codes, CodeProtocol)
	}
	if h.op == opBinary {
		codes = append(codes, CodeNotText)
	}
	if h.op < opClose && h.length > uint64(left) {
		codes = append(codes, transport.CodeTooLarge)
	}
	return codes
}
