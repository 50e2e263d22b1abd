package redisdb

import (
	"errors"
	"os"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/redistest"
)

func TestOpen_RefusesSettingsThatKeepLessThanIsAskedFor(t *testing.T) {
	disk := func(c *Config) { c.Durability = push.DurabilityDisk }
	process := func(*Config) {}
	asserted := func(c *Config) { c.Asserted = true }
	hiding := redistest.Setting("user", "default on nopass ~* &* +@all -config")
	for what, c := range map[string]struct {
		options []redistest.Option
		change  func(*Config)
		want    string // in the error: the setting and what to set it to; empty: it is opened
	}{
		"no file":              {[]redistest.Option{redistest.NoAppendOnly()}, process, "appendonly is no: set it to yes"},
		"no file, replicated":  {[]redistest.Option{redistest.NoAppendOnly()}, replicated(1), "appendonly is no: set it to yes"},
		"never flushed":        {[]redistest.Option{redistest.AppendFsync("no")}, process, "appendfsync is no: set it to everysec or always"},
		"flushed now and then": {nil, disk, "appendfsync is everysec: set it to always"},
		"flushed but for rewrites": {[]redistest.Option{redistest.AppendFsync("always"), redistest.Setting("no-appendfsync-on-rewrite", "yes")}, disk,
			"no-appendfsync-on-rewrite is yes: set it to no"},
		"always flushed":         {[]redistest.Option{redistest.AppendFsync("always")}, disk, ""},
		"more than enough":       {[]redistest.Option{redistest.AppendFsync("always")}, process, ""},
		"evicting":               {[]redistest.Option{redistest.MaxMemoryPolicy("allkeys-lru")}, process, "maxmemory-policy is allkeys-lru: set it to noeviction"},
		"hidden":                 {[]redistest.Option{hiding}, process, "hides its settings (NOPERM)"},
		"hidden and vouched for": {[]redistest.Option{hiding}, asserted, ""},
		"hidden but for evicting": {[]redistest.Option{hiding, redistest.MaxMemoryPolicy("volatile-ttl")}, asserted,
			"maxmemory-policy is volatile-ttl: set it to noeviction"},
		"shown, though vouched for": {[]redistest.Option{redistest.NoAppendOnly()}, asserted, "appendonly is no"},
	} {
		t.Run(what, func(t *testing.T) {
			r := redistest.Standalone(t, c.options...)
			config := configOf(r)
			c.change(&config)
			db, err := Open(t.Context(), config)
			if err == nil {
				for _, p := range db.Primaries() {
					if want := strings.HasPrefix(what, "hidden"); p.Asserted != want || !p.Reachable || p.Weak != "" {
						t.Errorf("it is shown as %+v", p)
					}
				}
				err2 := db.Close()
				if c.want != "" || err2 != nil {
					t.Fatalf("it is opened; closing it: %v", err2)
				}
				return
			}
			wantCode(t, err, push.KindInvalid, "store_weak")
			if c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpen_RefusesWhatCannotBeMeant(t *testing.T) {
	for what, c := range map[string]Config{
		"no address":                 {},
		"a mode that is none":        {Mode: "ring", Addrs: []string{"127.0.0.1:1"}},
		"two servers alone":          {Addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}},
		"sentinels of nothing":       {Mode: Sentinel, Addrs: []string{"127.0.0.1:1"}},
		"a database of a cluster":    {Mode: Cluster, Addrs: []string{"127.0.0.1:1"}, Database: 1},
		"replicated to nobody":       {Addrs: []string{"127.0.0.1:1"}, Durability: push.DurabilityReplicated},
		"a time before the question": {Addrs: []string{"127.0.0.1:1"}, Timeout: -1},
	} {
		_, err := Open(t.Context(), c)
		var e *push.Error
		if !errors.As(err, &e) || e.Kind != push.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSettings_ThatChangeStopWritesAndNothingElse(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r)
	tag := tagOf(1)
	set(t, db, tag, "a", "1")
	node := r.Servers()[0]
	config := func(name, value string) {
		t.Helper()
		if err := node.Client().ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", "a"), Args: []any{"2"}}}}
	lax := &Write{Tag: tag, Lax: true, Frees: true, Do: w.Do}
	stopped := func() {
		t.Helper()
		db.Write(t.Context(), w)
		wantCode(t, w.Err, push.KindUnavailable, "store_weak")
		if !strings.Contains(w.Err.Error(), "appendfsync is no") {
			t.Errorf("the error does not name the setting: %v", w.Err)
		}
		if db.Write(t.Context(), lax); !lax.Done {
			t.Errorf("what is lax: %v", lax.Err)
		}
		if get(t, db, tag, "a") != "2" {
			t.Error("it is not read")
		}
	}
	config("appendfsync", "no")
	until(t, "it is not healthy", func() bool { return db.Health(t.Context()) != nil })
	wantCode(t, db.Health(t.Context()), push.KindUnavailable, "store_weak")
	stopped()
	config("appendfsync", "everysec")
	until(t, "it is healthy", func() bool { return db.Health(t.Context()) == nil })
	set(t, db, tag, "a", "1")
}

func TestSettings_AreReadAtEachReconnect(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r, func(c *Config) { c.Watch = 1 << 40 }) // nothing but connecting looks
	tag := tagOf(1)
	set(t, db, tag, "a", "1")
	node := r.Servers()[0]
	if err := node.Client().ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err(); err != nil {
		t.Fatal(err)
	}
	if err := node.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", "a"), Args: []any{"2"}}}}
	until(t, "the connection is another", func() bool {
		db.Write(t.Context(), w)
		var e *push.Error
		return errors.As(w.Err, &e) && e.Code == "store_weak"
	})
	if got := get(t, db, tag, "a"); got != "1" {
		t.Errorf("it was written: %v", got)
	}
}

func TestUser_NeedsNoMoreThanTheDocsSay(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "The user needs: `")
	rules, _, ok2 := strings.Cut(rest, "`")
	if !ok || !ok2 {
		t.Fatal("the docs do not say what a user needs")
	}
	user := redistest.Setting("user", "carillon on >secret ~c:* resetchannels -@all "+rules)
	for _, start := range []func(testing.TB, ...redistest.Option) *redistest.Redis{redistest.Standalone, redistest.Cluster} {
		r := start(t, user)
		db := open(t, r, func(c *Config) { c.Username, c.Password = "carillon", "secret" })
		l := startLoad(t, db, 4)
		l.more(t, 20)
		l.judge(t)
		if _, _, err := db.Walk("e").Next(t.Context(), 10); err != nil {
			t.Error(err)
		}
		if got := get(t, db, tagOf(1), "no"); got != nil {
			t.Errorf("got %v", got)
		}
		if len(l.unknown) > 0 {
			t.Errorf("%d writes failed", len(l.unknown))
		}
	}
}
