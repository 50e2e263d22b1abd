package main

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"carillon/server/gateway"
)

func TestProductPolicy_PrintsWhatTheNamesStandFor(t *testing.T) {
	list := carillon(t, nil, "", "product", "policy")
	if list.code != exitOK {
		t.Fatal(list.errOut)
	}
	f := newFakeServer(t, 200, `{}`)
	dir := devData(t, "", f.URL)
	for _, name := range []string{"one-session", "one-per-platform", "one-per-class", "desktop-free-one-mobile", "at-most-3"} {
		if listed := strings.Replace(name, "most-3", "most-N", 1); !strings.Contains(list.out, listed+" ") {
			t.Errorf("%s is not listed in:\n%s", listed, list.out)
		}
		for _, excess := range []string{"kick_oldest", "reject_new"} {
			shown := carillon(t, nil, "", "product", "policy", name, "--on-excess", excess)
			if shown.code != exitOK || !strings.Contains(shown.out, `"on_excess": "`+excess+`"`) {
				t.Errorf("%s: code %d: %s%s", name, shown.code, shown.out, shown.errOut)
				continue
			}
			// What is printed is what the name means, and may be given back.
			for _, args := range [][]string{{"--policy", "-"}, {"--policy", name, "--on-excess", excess}} {
				r := carillon(t, nil, shown.out, append([]string{"product", "update", "shop", "--data", dir}, args...)...)
				want := map[string]any{"session_policy": jsonValue(t, shown.out)}
				if got := f.last(t).body; r.code != exitOK || !reflect.DeepEqual(got, any(want)) {
					t.Errorf("%s, %v: code %d %s\n got %v\nwant %v", name, args, r.code, r.errOut, got, want)
				}
			}
		}
	}
}

// devGateway runs a development server in this process, and returns its data directory.
func devGateway(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	g, err := gateway.New(t.Context(), gateway.Config{Data: dir, Dev: true, PublicListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A gateway takes every policy that has a name, and those that the documentation shows.
func TestProductPolicy_AGatewayTakesWhatNamesAndDocumentationSay(t *testing.T) {
	text, err := os.ReadFile("../../../docs/session-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	names, _, _ := strings.Cut(string(text), "\n## ") // the first part has the table of names
	var policies []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-zN-]+)` \\| .* \\|$").FindAllStringSubmatch(names, -1) {
		policies = append(policies, strings.Replace(m[1], "most-N", "most-1000", 1))
	}
	if len(policies) < len(named)+2 {
		t.Errorf("the documentation has the names %q, there are %d and at-most-N and none", policies, len(named))
	}
	examples := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) == 0 {
		t.Error("the documentation shows no policy")
	}
	for _, m := range examples {
		policies = append(policies, writeFile(t, m[1]))
	}
	dir := devGateway(t)
	for _, p := range policies {
		if r := carillon(t, nil, "", "product", "update", "dev", "--data", dir, "--policy", p); r.code != exitOK {
			t.Errorf("%s: %s", p, r.errOut)
			continue
		}
		r := carillon(t, nil, "", "product", "list", "--data", dir, "--json")
		var product struct {
			Policy *struct{ Rules []any } `json:"session_policy"`
		}
		if err := json.Unmarshal([]byte(r.out), &product); err != nil {
			t.Fatal(err)
		}
		if got, want := product.Policy != nil && len(product.Policy.Rules) > 0, p != noPolicy; got != want {
			t.Errorf("%s: the product has a policy %v, want %v: %s", p, got, want, r.out)
		}
	}
	for _, bad := range []string{"at-most-0", "at-most-1001", writeFile(t, `{"rules":[{"scope":"class","of":"none","max":1}]}`)} {
		if r := carillon(t, nil, "", "product", "update", "dev", "--data", dir, "--policy", bad); r.code != exitFailed {
			t.Errorf("%s: code %d, want %d: %s", bad, r.code, exitFailed, r.errOut)
		}
	}
}
