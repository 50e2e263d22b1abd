package redisdb

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"
)

func TestOpen_SaysAtOnceWhatWaitingDoesNotChange(t *testing.T) {
	alone, sentinels, cluster := pool.Standalone(t), pool.Sentinel(t), pool.Cluster(t)
	at := func(n *redistest.Node) []string { return []string{n.Addr()} }
	for what, c := range map[string]struct {
		config Config
		want   string
	}{
		"a server of a cluster, as one alone": {Config{Mode: Standalone, Addrs: at(cluster.Servers()[0])}, "mode cluster"},
		"a sentinel, as a server":             {Config{Mode: Standalone, Addrs: at(sentinels.Sentinels()[0])}, "mode sentinel"},
		"a server alone, as a cluster":        {Config{Mode: Cluster, Addrs: at(alone.Servers()[0])}, "cluster support disabled"},
		"a server, as a sentinel":             {Config{Mode: Sentinel, Addrs: at(alone.Servers()[0]), Master: "x"}, "unknown command"},
		"a primary that nobody watches":       {Config{Mode: Sentinel, Addrs: sentinels.Access().Addrs, Master: "another"}, "No such master"},
	} {
		db, err := Open(t.Context(), c.config)
		if err == nil {
			t.Errorf("%s: it is opened", what)
			db.Close()
			continue
		}
		wantCode(t, err, push.KindInvalid, "store_refused")
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", what, err, c.want)
		}
	}
}

func TestOpen_TrustsNoCertificateOfAnotherAuthority(t *testing.T) {
	c := configOf(redistest.Standalone(t, redistest.TLS()))
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	_, err := Open(t.Context(), c)
	wantCode(t, err, push.KindInvalid, "store_refused")
}

func TestOpen_MayBeTriedAgainWhereNobodyIsOrIsReady(t *testing.T) {
	r := redistest.Standalone(t)
	node, c := r.Servers()[0], configOf(r)
	c.Timeout = time.Second
	fails := func(why string) {
		t.Helper()
		_, err := Open(t.Context(), c)
		wantCode(t, err, push.KindUnavailable, "store_unavailable")
		if !strings.Contains(err.Error(), why) {
			t.Errorf("error %v, want %q", err, why)
		}
	}
	if err := node.ReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	fails("it is a replica")
	if err := node.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	fails("timeout")
	node.Kill()
	fails("refused")
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(t, open(t, r), tagOf(1), "a", "1")
}

// Who restarts a node because Redis is full must get it back: clients that connect to it drain what fills Redis.
func TestOpen_OfAFullServerThatHasTheFunctions(t *testing.T) {
	r := redistest.Standalone(t)
	set(t, open(t, r), tagOf(1), "big", strings.Repeat("x", 8<<20))
	if err := r.Fill(t.Context(), 110); err != nil {
		t.Fatal(err)
	}
	db := open(t, r)
	if !db.Full() {
		t.Error("it does not say that it is full")
	}
	if err := r.Servers()[0].Client().FunctionFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), configOf(r))
	wantCode(t, err, push.KindUnavailable, "store_unavailable")
}
