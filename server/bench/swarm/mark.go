package swarm

import (
	"bytes"
	"encoding/hex"
)

// Mark is what a message of the bench carries at the beginning of its body: enough to know it and to tell how long it took,
// without decoding the frame.
type Mark struct {
	Phase uint32 // of the bench: what is left over from an earlier one is not counted
	Seq   uint64
	Sent  int64 // on CLOCK_MONOTONIC, when the request was begun
}

// The mark within a frame: three numbers in hexadecimal, each of a fixed width, behind what begins the body in either encoding.
const (
	markStart = `"bench `
	markSize  = 8 + 1 + 16 + 1 + 16

	// MaxUnderWay is how many messages that go to everybody may be under way at the same time, for a process to count each.
	MaxUnderWay = 1 << 12

	// MinBody is the least that AppendBody can write.
	MinBody = len(`"bench `) + markSize + 1
)

// AppendBody appends a body with that mark to dst: a JSON string that takes size bytes with its quotes, at least MinBody.
func AppendBody(dst []byte, m Mark, size int) []byte {
	start := len(dst)
	dst = append(dst, `"bench `...)
	dst = appendHex(dst, uint64(m.Phase), 8)
	dst = append(dst, ' ')
	dst = appendHex(dst, m.Seq, 16)
	dst = append(dst, ' ')
	dst = appendHex(dst, uint64(m.Sent), 16)
	for len(dst) < start+size-1 {
		dst = append(dst, '.')
	}
	return append(dst, '"')
}

func appendHex(dst []byte, n uint64, digits int) []byte {
	const hex = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	return dst
}

var markStartBytes = []byte(markStart)

// findMark returns the mark of a message frame. It allocates nothing.
func findMark(frame []byte) (m Mark, ok bool) {
	i := bytes.Index(frame, markStartBytes)
	if i < 0 || len(frame) < i+len(markStart)+markSize {
		return m, false
	}
	at := frame[i+len(markStart):]
	phase, ok1 := readHex(at[:8])
	seq, ok2 := readHex(at[9:25])
	sent, ok3 := readHex(at[26:42])
	return Mark{uint32(phase), seq, int64(sent)}, ok1 && ok2 && ok3
}

func readHex(b []byte) (uint64, bool) {
	var raw [8]byte
	n, err := hex.Decode(raw[:], b)
	if err != nil {
		return 0, false
	}
	var v uint64
	for _, x := range raw[:n] {
		v = v<<8 | uint64(x)
	}
	return v, true
}
