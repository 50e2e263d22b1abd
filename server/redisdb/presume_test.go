package redisdb

import (
	"testing"
	"time"

	"carillon/server/push"
)

// TestPresume_SaysWhatTheLastAnswerSaid: its lineage and the time since, of the server that has the tag, for a second.
func TestPresume_SaysWhatTheLastAnswerSaid(t *testing.T) {
	clk := &fakeClock{at: time.UnixMilli(1_900_000_000_000)}
	db := open(t, pool.Standalone(t), func(c *Config) { c.Clock = clk })
	if _, ok := db.Presume("a"); ok {
		t.Fatal("nothing was said yet")
	}
	said := &Read{Tag: "a", Do: []Command{{Name: "GET", Key: Tag("a").Key("x", "")}}}
	db.Read(t.Context(), said)
	if said.Err != nil {
		t.Fatal(said.Err)
	}
	for _, c := range []struct {
		after time.Duration
		ok    bool
	}{{0, true}, {700 * time.Millisecond, true}, {300 * time.Millisecond, true}, {time.Millisecond, false}, {-2 * time.Second, false}} {
		clk.at = clk.at.Add(c.after)
		got, ok := db.Presume("b")
		if ok != c.ok {
			t.Fatalf("%v later: %v", c.after, ok)
		}
		if want := (Answer{Lineage: said.Lineage, Now: push.Milli(clk.Now())}); ok && got != want {
			t.Errorf("%v later: %+v, want %+v", c.after, got, want)
		}
	}
}
