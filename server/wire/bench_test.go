package wire

import (
	"strings"
	"testing"

	"carillon/server/push"
)

var encodings = []struct {
	name string
	enc  Encoding
}{{"json", JSON}, {"binary", Binary}}

func BenchmarkAppendOut(b *testing.B) {
	for _, e := range encodings {
		b.Run(e.name, func(b *testing.B) {
			o := &Out{Shared: NewShared(sample()), Slot: push.Common, Pos: 1853030828408839}
			buf := make([]byte, 0, 4096)
			b.SetBytes(int64(len(AppendOut(buf, e.enc, o))))
			b.ReportAllocs()
			for b.Loop() {
				AppendOut(buf, e.enc, o)
			}
		})
	}
}

func BenchmarkTail(b *testing.B) {
	for _, e := range encodings {
		b.Run(e.name, func(b *testing.B) {
			m := sample()
			b.ReportAllocs()
			for b.Loop() {
				NewShared(m).tail(e.enc)
			}
		})
	}
}

func BenchmarkDecodeClient(b *testing.B) {
	cursor := "1.366b3e2ade2f1357.4a1b.9c3d55e07f12a6b8.6955b90000000.77.9c3d55e07f12a6b8.6955b90100000"
	for _, f := range []Frame{
		&Ping{}, &Ack{Cursor: cursor}, &Event{Event: Displayed, ID: 7238556057600001, Time: 1767225660123},
		&Connect{Version: 1, Token: strings.Repeat("token", 60), Cursor: cursor, Client: "carillon-js/1.0"},
	} {
		for _, e := range encodings {
			b.Run(f.Type().String()+"/"+e.name, func(b *testing.B) {
				in := Append(nil, e.enc, f)
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := DecodeClient(e.enc, in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkDecodeServer(b *testing.B) {
	for _, e := range encodings {
		b.Run("message/"+e.name, func(b *testing.B) {
			in := Append(nil, e.enc, &Message{Slot: push.Own, Pos: 1853030828408839, Message: *sample()})
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeServer(e.enc, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
