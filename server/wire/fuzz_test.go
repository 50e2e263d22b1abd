package wire

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// addGolden gives a fuzz target every golden input of one encoding.
func addGolden(f *testing.F, enc Encoding) {
	var frames []golden
	readGolden(f, "frames.json", &frames)
	for _, g := range frames {
		if enc == JSON {
			f.Add([]byte(g.JSON))
		} else {
			f.Add(unhex(f, g.Binary))
		}
	}
	var refusals []refusal
	readGolden(f, "invalid.json", &refusals)
	for _, r := range refusals {
		if e, b := r.input(f); e == enc {
			f.Add(b)
		}
	}
}

// replay decodes b as either side and holds what comes of it to the invariants of both decoders.
func replay(t *testing.T, enc Encoding, b []byte) {
	for _, side := range []fromSide{"client", "server"} {
		was := bytes.Clone(b)
		f, err := side.decode(enc, b)
		if !bytes.Equal(b, was) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			if f != nil || codeOf(err) == "" {
				t.Fatalf("got %v with %v", f, err)
			}
			continue
		}
		if enc == JSON && !json.Valid(b) {
			t.Fatalf("accepted %q, which is not JSON", b)
		}
		for _, other := range []Encoding{JSON, Binary} {
			out := Append(nil, other, f)
			if other == JSON && (!json.Valid(out) || !utf8.Valid(out)) {
				t.Fatalf("wrote %q, which is not JSON", out)
			}
			again, err := side.decode(other, out)
			if err != nil || !same(again, f) {
				t.Fatalf("encoding %d: got %+v, %v, want %+v", other, again, err, f)
			}
			// A message may have had flags of a later version or headers out of order.
			if enc == Binary && other == Binary && f.Type() != TypeMessage && !bytes.HasPrefix(b, out) {
				t.Fatalf("wrote %x, read from %x: a frame has one binary form", out, b)
			}
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	addGolden(f, JSON)
	f.Fuzz(func(t *testing.T, b []byte) { replay(t, JSON, b) })
}

func FuzzDecodeBinary(f *testing.F) {
	addGolden(f, Binary)
	f.Fuzz(func(t *testing.T, b []byte) { replay(t, Binary, b) })
}
