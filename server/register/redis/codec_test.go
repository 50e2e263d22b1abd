package redis

import (
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

func TestCodec_SessionsAreReadAsTheyWereWritten(t *testing.T) {
	at := place{"north", life{1, 2, 3, 4, 5, 6}}
	shard := push.ShardOf("alice", testShards)
	var want []register.Session
	var value []byte
	for _, s := range []register.Session{
		{Key: register.Key{Product: "shop", User: "alice", Device: "phone"}, Shard: shard, Epoch: 1 << 60},
		{
			Key: register.Key{Product: "shop", User: "alice", Device: "web"}, Shard: shard + 1, Platform: push.PlatformTV, Class: "kiosk", Transport: "poll",
			TokenID: "jti", Epoch: 1<<60 + 1, Since: 1700000000123, Row: 1 << 59,
		},
		{Key: register.Key{Product: "shop", User: "alice", Device: "tv"}, Shard: shard, Transport: "carrier pigeon", Epoch: 1, Since: -5},
	} {
		s.Room = "north"
		want = append(want, s)
		value = appendSession(value, &s, at, shard)
	}
	var got []register.Session
	raw := ""
	err := readSessions("shop", "alice", shard, string(value), func(s *stored) {
		if s.at != at {
			t.Errorf("place %v, want %v", s.at, at)
		}
		got, raw = append(got, s.Session), raw+s.raw
	})
	if err != nil || raw != string(value) || len(got) != len(want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v\nwant %+v", got[i], want[i])
		}
	}
}

// TestCodec_FieldsOfALaterVersionAreLeft has more behind a session than this version knows.
func TestCodec_FieldsOfALaterVersionAreLeft(t *testing.T) {
	s := register.Session{Key: register.Key{Product: "shop", User: "alice", Device: "phone"}, Room: "north", Epoch: 5, TokenID: "jti", Row: 4}
	value := appendSession(nil, &s, place{room: "north"}, 0)
	value = append(value, "what comes later"...)
	value[1] += byte(len("what comes later"))
	n := 0
	err := readSessions("shop", "alice", 0, string(value)+string(value), func(got *stored) {
		if n++; got.Session != s {
			t.Errorf("got %+v, want %+v", got.Session, s)
		}
	})
	if err != nil || n != 2 {
		t.Errorf("%d sessions, %v", n, err)
	}
}

func FuzzReadSessions(f *testing.F) {
	s := register.Session{Key: register.Key{Product: "shop", User: "alice", Device: "phone"}, Room: "north", Epoch: 5, TokenID: "jti", Class: "kiosk"}
	value := string(appendSession(nil, &s, place{room: "north"}, 1))
	f.Add(value)
	f.Add(value + value)
	f.Add(value[:len(value)-1])
	f.Add(string(appendOrder(nil, &register.Order{Key: s.Key, Epoch: 4, By: s}, place{room: "north"}, 1, 7)))
	f.Add(string(appendLease(nil, &lease{boot: 7, until: 9, addr: "here"})))
	f.Fuzz(func(t *testing.T, value string) {
		_ = readSessions("shop", "alice", 1, value, func(s *stored) {
			if len(s.Device) > 255 || len(s.raw) > len(value) {
				t.Errorf("a session of %d bytes out of %d", len(s.raw), len(value))
			}
		})
		_, _, _ = readOrder(value)
		_, _ = readLease(value)
		_, _ = readField(value)
		_, _, _ = readNumber(value)
	})
}
