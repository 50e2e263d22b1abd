package bench

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/bench/swarm"
)

func TestResult_SeveralRunsAreMedianAndBounds(t *testing.T) {
	r := Result{Scenario: "broadcast", transport: "ws", Settings: map[string]any{"clients": 10}}
	for _, v := range []float64{9, 30, 12, 11} {
		r.add(&world{values: map[string]float64{"cpu_us_per_delivery": v, "deliveries": 300}, notes: []string{"the same"}})
	}
	r.summarize()
	if len(r.Figures) != 2 || len(r.Notes) != 1 {
		t.Fatalf("got %+v", r)
	}
	f := r.Figures[0]
	if f.Min != 9 || f.Value != 11.5 || f.Max != 30 || len(f.Runs) != 4 || f.Target != 12 || !f.reached(f.Target) {
		t.Errorf("got %+v", f)
	}
	rep := Report{Results: []Result{r}}
	b, err := json.Marshal(rep)
	if err != nil || !strings.Contains(string(b), `"name":"cpu_us_per_delivery"`) {
		t.Errorf("%s (%v)", b, err)
	}
	var text strings.Builder
	if err := rep.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"median", "max", "≤ 12 yes", "≤ 11 NO", "note: the same"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestIdle_HeartbeatsHaveTheirMarkWhereItWasSet(t *testing.T) {
	asSet := Idle{Transport: "ws", High: 18_000, Heartbeat: time.Minute}
	other, seldom := asSet, asSet
	other.High, seldom.Heartbeat = 10_000, 2*time.Minute
	for _, c := range []struct {
		name string
		s    Idle
		w    *world
		want float64
	}{
		{"as it was set", asSet, &world{}, 1.5},
		{"fewer sessions", other, &world{}, 0},
		{"seldom", seldom, &world{}, 0},
		{"a server that was there", asSet, &world{facts: ServerFacts{Running: true}}, 0},
		{"another interval by flag", asSet, &world{cfg: Config{ServerFlags: []string{"--heartbeat-interval=30s"}}}, 0},
		{"other flags", asSet, &world{cfg: Config{ServerFlags: []string{"--limits-queue-messages=9"}}}, 1.5},
	} {
		c.w.values = make(map[string]float64)
		passed := meter{wall: time.Minute}
		c.s.figures(c.w, level{}, [2]level{}, passed, passed, new(swarm.Report))
		r := Result{Scenario: "idle", transport: "ws"}
		r.add(c.w)
		i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == heartbeatsFigure })
		if got := r.Figures[i].Target; got != c.want {
			t.Errorf("%s: the target is %v, want %v", c.name, got, c.want)
		}
	}
}

func TestColumns_AlignTextAndNumbers(t *testing.T) {
	got := columns([][]string{{"", "value", "unit"}, {"µ", "1", "µs"}, {"longer", "12 345", ""}})
	want := "         value  unit\nµ            1  µs\nlonger  12 345\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNumber_HasTheDigitsItIsWorth(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.12345: "0.123", 3.14159: "3.14", 5: "5", 99.5: "99.50", 100.4: "100", 1234567: "1 234 567", -1234: "-1 234", -12.5: "-12.50",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

func TestDefinitions_NamesAreStableAndUnique(t *testing.T) {
	for scenario, ds := range definitions {
		seen := map[string]bool{}
		for _, d := range append(ds[:len(ds):len(ds)], ownFigures...) {
			if seen[d.name] || d.name == "" || d.text == "" || d.better == "" {
				t.Errorf("%s: %+v is there twice, or lacks a part", scenario, d)
			}
			seen[d.name] = true
		}
	}
}

func TestLoopback_AcceptsThisMachineAlone(t *testing.T) {
	for address, want := range map[string]string{
		"http://127.0.0.1:8080": "127.0.0.1:8080", "http://localhost:80": "127.0.0.1:80", "http://[::1]:8080": "[::1]:8080",
		"http://127.1.2.3:1":    "127.1.2.3:1",
		"http://192.0.2.1:8080": "", "http://example.org:80": "", "https://127.0.0.1:1": "", "http://0.0.0.0:80": "", "::": "",
	} {
		got, err := loopback(address, "http")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", address, got, err, want)
		}
	}
	for address, want := range map[string]string{"tcp://127.0.0.1:8082": "127.0.0.1:8082", "tcps://127.0.0.1:8082": "", "tcp://192.0.2.1:1": ""} {
		if got, err := loopback(address, "tcp"); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", address, got, err, want)
		}
	}
}

func TestDefinitions_OtherTransportsHaveMarksOfTheirOwn(t *testing.T) {
	of := func(scenario, transport, name string) definition {
		ds := definitionsOf(scenario, transport)
		return ds[slices.IndexFunc(ds, func(d definition) bool { return d.name == name })]
	}
	for _, c := range []struct {
		scenario, transport, name string
		target, goal              float64
	}{
		{"idle", "ws", "rss_bytes_per_session_collected", 5120, 4096},
		{"idle", "sse", "rss_bytes_per_session_collected", 4096, 3072},
		{"idle", "tcp", "rss_bytes_per_session", 5120, 0},
		{"idle", "ws", "heartbeats_core_percent", 1.5, 0},
		{"idle", "sse", "heartbeats_core_percent", 0, 0},
		{"broadcast", "tcp", "cpu_us_per_delivery", 0, 0},
		{"broadcast", "ws", "cpu_us_per_delivery", 12, 11},
		{"connect", "sse", "again_cpu_us", 220, 200},
	} {
		if d := of(c.scenario, c.transport, c.name); d.target != c.target || d.goal != c.goal {
			t.Errorf("%s over %s: %s has %v and %v, want %v and %v", c.scenario, c.transport, c.name, d.target, d.goal, c.target, c.goal)
		}
	}
	for scenario, names := range ofWebSockets {
		for _, name := range names {
			if !slices.ContainsFunc(definitions[scenario], func(d definition) bool { return d.name == name }) {
				t.Errorf("%s has no figure %s", scenario, name)
			}
		}
	}
}
