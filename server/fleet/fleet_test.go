package fleet

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/proxytest"
	"carillon/server/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func TestParseLife_FindsTheAddressesInALog(t *testing.T) {
	for _, c := range []struct {
		name, log string
		want      life
	}{
		{"nothing yet", "", life{}},
		{"before it serves", "time=x level=INFO msg=starting public=127.0.0.1:1\n", life{}},
		{"a room", "time=x level=INFO msg=starting\ntime=y level=INFO msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=tcp://127.0.0.1:13 engine=epoll\n",
			life{"127.0.0.1:11", "127.0.0.1:12", "127.0.0.1:13", ""}},
		{"a center", "level=INFO msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=off nodes=127.0.0.1:15 nodes_listen=127.0.0.1:14\n",
			life{"127.0.0.1:11", "127.0.0.1:12", "", "127.0.0.1:14"}},
		{"one that is alone", "level=INFO msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=off nodes=none nodes_listen=none\n", life{"127.0.0.1:11", "127.0.0.1:12", "", ""}},
		{"with lines behind it", "msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=off\nmsg=\"serving public=9\" public=127.0.0.1:99\n",
			life{"127.0.0.1:11", "127.0.0.1:12", "", ""}},
	} {
		if got := parseLife(c.log); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestNode_IsToldItsNameRoleAndWhatItSurvives(t *testing.T) {
	f := &Fleet{secret: "s3cret", cfg: Config{
		Redis:      redistest.Access{Mode: "sentinel", Addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}, MasterName: "carillon"},
		Durability: "replicated", Replicas: 2, Env: []string{"CARILLON_LOG_LEVEL=debug"},
	}}
	n := &Node{fleet: f, name: "room2", role: Room}
	env := n.environment()
	for _, want := range []string{
		"CARILLON_ROLES=room", "CARILLON_NODE_ID=room2", "CARILLON_REDIS_MODE=sentinel", "CARILLON_REDIS_ADDRESSES=127.0.0.1:1,127.0.0.1:2",
		"CARILLON_REDIS_MASTER=carillon", "CARILLON_REDIS_DURABILITY=replicated", "CARILLON_REDIS_REPLICAS=2", "CARILLON_LOG_LEVEL=debug",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment lacks %s", want)
		}
	}
}

func TestNode_ThatWasNeverStartedHasNothingToEnd(t *testing.T) {
	n := &Node{fleet: &Fleet{}, name: "room1", role: Room}
	if n.Running() || n.PID() != 0 || n.Exited() != nil || n.Said() != "" {
		t.Error("it seems to run")
	}
	n.Kill()
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	if n.Freeze() == nil || n.Thaw() == nil {
		t.Error("a signal went nowhere without an error")
	}
}

func TestNode_LosesOneWayUntilItIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := &Node{fleet: &Fleet{}, name: "room1", role: Room}
	if err := n.startProxy(); err != nil {
		t.Fatal(err)
	}
	defer n.proxy.Close()
	n.proxy.Retarget(l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dial := func() (caller, node net.Conn) {
		caller, err := net.Dial("tcp", n.proxy.Addr())
		if err == nil {
			node, err = l.Accept()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { caller.Close(); node.Close() })
		return caller, node
	}
	say := func(from, to net.Conn, what string) {
		t.Helper()
		got := make([]byte, len(what))
		if _, err := from.Write([]byte(what)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, got); err != nil || string(got) != what {
			t.Fatalf("got %q, %v, want %q", got, err, what)
		}
	}
	before, node := dial()
	say(before, node, "hello")
	n.Lose(proxytest.Up)
	later, node2 := dial()
	for i, nc := range []net.Conn{before, later} {
		if _, err := nc.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		link, err := n.proxy.Link(ctx, i)
		if err == nil {
			err = link.Await(ctx, func(c proxytest.Counts) bool { return c.Up.Dropped == 4 })
		}
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	say(node, before, "the other way")
	say(node2, later, "the other way")
	n.Lose(0)
	if _, err := before.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that lost something goes on")
	}
	caller, node := dial()
	say(caller, node, "hello again")
}
