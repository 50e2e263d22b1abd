package fleet

import (
	"slices"
	"testing"

	"go.uber.org/goleak"

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
			life{"127.0.0.1:11", "127.0.0.1:12", "127.0.0.1:13"}},
		{"a center", "level=INFO msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=off\n", life{"127.0.0.1:11", "127.0.0.1:12", ""}},
		{"with lines behind it", "msg=serving public=127.0.0.1:11 admin=127.0.0.1:12 tcp=off\nmsg=\"serving public=9\" public=127.0.0.1:99\n",
			life{"127.0.0.1:11", "127.0.0.1:12", ""}},
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
