package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// at runs a command line as an app that is more than a pipe; its streams are the test's.
func at(t *testing.T, a app, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	a.stdin, a.stdout, a.stderr = strings.NewReader(stdin), &out, &errOut
	code := a.run(t.Context(), args)
	return result{code, out.String(), errOut.String()}
}

const madeTask = `{"id":"7","revision":1,"state":"scheduled","name":"","created":"c","changed":"c","by":{"key":"k","at":"c"},"needs_approval":false,
	"to":{},"message":{},"template":false,"progress":{"users":2},"funnel":{"dropped":{}},"moves":[],"allowed":["pause","stop","clone"]}`

func TestTasksCreate_BuildsTheRequest(t *testing.T) {
	f := newFakeServer(t, 201, madeTask)
	dir := devData(t, f.URL, "")
	cases := []struct{ args, want string }{
		{`--user alice --body 1`, `{"to":{"users":["alice"]},"message":{"body":1}}`},
		{`--list 9 --template --body "{{name}}" --name Sale --test-group alice --test-group b,ob`,
			`{"name":"Sale","to":{"list":"9"},"message":{"body":"{{name}}"},"template":true,"test_group":["alice","b,ob"]}`},
		{`--list 9 --platform ios --class mobile --body 1 --ttl 1h --collapse-key c --header a=b --ref r`,
			`{"to":{"list":"9","platforms":["ios"],"classes":["mobile"]},"message":{"body":1,"ttl_seconds":3600,"collapse_key":"c","headers":{"a":"b"},"ref":"r"}}`},
		{`--everyone --body-base64 AAE= --over 1h --start 2027-01-31T10:00:00+01:00 --deadline 2027-01-31T12:00:00.5Z`,
			`{"to":{"everyone":true},"message":{"body_base64":"AAE="},"pace":{"over_seconds":3600},
			"start":"2027-01-31T09:00:00Z","deadline":"2027-01-31T12:00:00.5Z"}`},
		{`--tag a --membership at_send --body 1 --per-second 0.5 --draft`,
			`{"to":{"tags":{"all":["a"]},"membership":"at_send"},"message":{"body":1},"pace":{"per_second":0.5},"draft":true}`},
		{`--device alice/phone --body 1 --online-only`, `{"to":{"devices":[{"user":"alice","device":"phone"}]},"message":{"body":1,"persistent":false}}`},
		{`--everyone --body 1 --cron @daily --time-zone Europe/Berlin`,
			`{"to":{"everyone":true},"message":{"body":1},"cron":"@daily","time_zone":"Europe/Berlin"}`},
	}
	for _, c := range cases {
		r := carillon(t, nil, "", append([]string{"tasks", "create", "--data", dir}, strings.Fields(c.args)...)...)
		if r.code != exitOK || r.out != "7\n" {
			t.Errorf("%s: code %d, printed %q: %s", c.args, r.code, r.out, r.errOut)
			continue
		}
		got := f.last(t)
		if got.method != "POST" || got.path != "/v1/tasks" || got.bearer != "cak_dev" || !strings.HasPrefix(got.key, "cli-") {
			t.Errorf("%s: asked %s %s as %s under %q", c.args, got.method, got.path, got.bearer, got.key)
		}
		if !reflect.DeepEqual(got.body, jsonValue(t, c.want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.args, got.body, c.want)
		}
	}
	before := time.Now()
	carillon(t, nil, "", "tasks", "create", "--data", dir, "--everyone", "--body", "1", "--start", "30m", "--idempotency-key", "mine")
	start, err := time.Parse(time.RFC3339, f.last(t).body.(map[string]any)["start"].(string))
	if err != nil || start.Before(before.Add(30*time.Minute-time.Second)) || start.After(time.Now().Add(30*time.Minute)) || f.last(t).key != "mine" {
		t.Errorf("starts at %v, %v, under the key %q", start, err, f.last(t).key)
	}
}

func TestTasks_RefuseWhatCannotBeMeant(t *testing.T) {
	f := newFakeServer(t, 500, "")
	dir := devData(t, f.URL, "")
	for _, args := range []string{
		"create --body 1", "create --everyone", "create --list 1 --user alice --body 1", "create --list 1 --tag a --body 1", "create --list 1 --list-file f --body 1",
		"create --list 1 --strict --body 1", "create --list-file - --body-file -", "create --everyone --body 1 --time-zone UTC", "create --everyone --body x",
		"create --everyone --body 1 --cron @daily --start 1h", "create --everyone --body 1 --cron @daily --test-group alice", "create --everyone --body 1 --start soon",
		"create --everyone --body 1 --deadline -1h", "create --everyone --body 1 --per-second -1", "create --everyone --body 1 --over 1500ms",
		"create --everyone --body 1 --over 1h --per-second 1", "create --everyone --body 1 --watch --validate-only", "create --user alice --body 1 --membership at_send",
		"list --state lost", "list --limit -1", "show", "approve", "pace 1", "pace 1 --unlimited --over 1h", "pace 1 --per-second 0", "pace 1 --over -1h",
		"switch of", "switch --reason because", "pause", "recall", "delete",
	} {
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", append([]string{"tasks"}, strings.Fields(args)...)...)
		if r.code != exitUsage {
			t.Errorf("%s: code %d, want %d (%s)", args, r.code, exitUsage, r.errOut)
		}
	}
	if len(f.got) != 0 {
		t.Errorf("a wrong command line reached the server: %v", f.got)
	}
}

func TestTasks_AskForTheRightThing(t *testing.T) {
	f := newFakeServer(t, 200, "")
	dir := devData(t, f.URL, f.URL)
	answers := map[string]string{"tasks list": `{"tasks":[` + madeTask + `]}`, "tasks switch": `{"off":true,"reason":"r"}`,
		"lists list": `{"lists":[{"id":"9","name":"n","users":3,"variables":["a","b"],"created":"c"}]}`, "lists show": `{"id":"9","users":3,"variables":[],"created":"c"}`}
	cases := []struct{ args, method, path, body, want string }{
		{"tasks approve 7", "POST", "/v1/tasks/7/approve", `{}`, "task 7 is scheduled"},
		{"tasks resume 7 --reason r", "POST", "/v1/tasks/7/resume", `{"reason":"r"}`, "task 7 is scheduled"},
		{"tasks pause 7", "POST", "/v1/tasks/7/pause", `{}`, "task 7 is"},
		{"tasks stop a/b --json", "POST", "/v1/tasks/a%2Fb/stop", `{}`, `"revision":1`},
		{"tasks recall 7", "POST", "/v1/tasks/7/recall", `{}`, "task 7 is"},
		{"tasks pace 7 --per-second 500", "PATCH", "/v1/tasks/7", `{"pace":{"per_second":500}}`, "task 7 goes as fast as it goes from now on"},
		{"tasks pace 7 --over 90m", "PATCH", "/v1/tasks/7", `{"pace":{"over_seconds":5400}}`, ""},
		{"tasks pace 7 --unlimited", "PATCH", "/v1/tasks/7", `{"pace":null}`, ""},
		{"tasks clone 7", "POST", "/v1/tasks/7/clone", "", "7\n"},
		{"tasks delete 7", "DELETE", "/v1/tasks/7", "", "forgot task 7"},
		{"tasks switch", "GET", "/v1/task-switch", "", "tasks are switched off: nothing is written until they are switched on again (r)"},
		{"tasks switch off --reason r", "PUT", "/v1/task-switch", `{"off":true,"reason":"r"}`, "switched off"},
		{"tasks switch on", "PUT", "/v1/task-switch", `{"off":false}`, ""},
		{"tasks list --state paused --state failed --parent 3", "GET", "/v1/tasks?parent=3&state=paused&state=failed&limit=100", "", "7   -     scheduled  0.0 %"},
		{"tasks list --json", "GET", "/v1/tasks?limit=100", "", `{"id":"7"`},
		{"tasks show 7", "GET", "/v1/tasks/7", "", "scheduled: it starts as soon as a node takes it"},
		{"lists list", "GET", "/v1/lists?limit=100", "", "9   n     3      a,b        c"},
		{"lists show 9", "GET", "/v1/lists/9", "", "users      3"},
		{"lists delete 9", "DELETE", "/v1/lists/9", "", "forgot list 9"},
		{"product update shop --task-approval-above 5000", "PATCH", "/admin/v1/products/shop", `{"task_approval":{"above_users":5000}}`, ""},
		{"product update shop --task-approval-above never --task-approval-everyone=false", "PATCH", "/admin/v1/products/shop",
			`{"task_approval":{"above_users":null,"everyone":false}}`, ""},
		{"product create shop --task-approval-everyone=true", "POST", "/admin/v1/products", `{"id":"shop","task_approval":{"everyone":true}}`, ""},
	}
	for _, c := range cases {
		words := strings.Fields(c.args)
		if f.answer = answers[words[0]+" "+words[1]]; f.answer == "" {
			f.answer = madeTask
		}
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", words...)
		got := f.last(t)
		if r.code != exitOK || got.method != c.method || got.path != c.path {
			t.Errorf("%s: code %d, asked %s %s (%s)", c.args, r.code, got.method, got.path, r.errOut)
		}
		if c.body == "" && got.body != nil || c.body != "" && !reflect.DeepEqual(got.body, jsonValue(t, c.body)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.args, got.body, c.body)
		}
		if !strings.Contains(r.out, c.want) {
			t.Errorf("%s: printed %q, want %q in it", c.args, r.out, c.want)
		}
	}
	for _, args := range []string{"product update shop --task-approval-above 0", "product update shop --task-approval-above some"} {
		if r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", strings.Fields(args)...); r.code != exitUsage {
			t.Errorf("%s: code %d: %s", args, r.code, r.errOut)
		}
	}
}

func TestTasks_AnOutcomeThatIsUnknownCanBeFoundOut(t *testing.T) {
	f := newFakeServer(t, 503, "")
	dir := devData(t, f.URL, "")
	for args, want := range map[string]string{
		"create --everyone --body 1 --start 2027-01-31T10:00:00+01:00": "whether a task was made is unknown; repeat the command with --idempotency-key %s --start 2027-01-31T09:00:00Z",
		"clone 7":    "whether a draft was made is unknown; repeat the command with --idempotency-key %s",
		"pause 7":    "repeating the command does no harm",
		"recall 7":   "repeating the command does no harm",
		"switch off": "repeating the command does no harm",
	} {
		r := carillon(t, nil, "", append([]string{"tasks"}, append(strings.Fields(args), "--data", dir)...)...)
		if strings.Contains(want, "%s") {
			want = fmt.Sprintf(want, f.last(t).key)
		}
		if r.code != exitFailed || !strings.Contains(r.errOut, want) {
			t.Errorf("%s: code %d: %q, want %q in it", args, r.code, r.errOut, want)
		}
	}
}

func TestTasksRecall_AsksOnATerminal(t *testing.T) {
	task := `{"id":"7","state":"completed","name":"Sale","progress":{"users":9,"exact":true,"written":9},"funnel":{"exact":false,"acknowledged":4,"waiting":2}}`
	for _, c := range []struct {
		args, answer string
		code         int
		asked        []string
	}{
		{"7", "y\n", exitOK, []string{"GET", "POST"}},
		{"7", "yes", exitOK, []string{"GET", "POST"}},
		{"7", "n\n", exitFailed, []string{"GET"}},
		{"7", "", exitFailed, []string{"GET"}},
		{"7", "\n", exitFailed, []string{"GET"}},
		{"7 --yes", "", exitOK, []string{"POST"}},
	} {
		f := newFakeServer(t, 200, task)
		r := at(t, app{asks: true}, c.answer, append([]string{"tasks", "recall", "--data", devData(t, f.URL, "")}, strings.Fields(c.args)...)...)
		var asked []string
		for _, g := range f.got {
			asked = append(asked, g.method)
		}
		if r.code != c.code || !reflect.DeepEqual(asked, c.asked) {
			t.Errorf("%s, %q: code %d, asked %v (%s)", c.args, c.answer, r.code, asked, r.errOut)
		}
		if want := `task 7 "Sale" is completed: written for 9 of 9 users` + "\n" +
			"its message was written for about 9 users; 4 devices acknowledged it, and 2 wait for it\n"; len(asked) > 0 && asked[0] == "GET" && !strings.HasPrefix(r.errOut, want) {
			t.Errorf("it says %q, want %q", r.errOut, want)
		}
	}
}

func TestTasksCreate_SaysWhatItWouldBe(t *testing.T) {
	for answer, want := range map[string]string{
		`{"valid":true,"users":2,"exact":true,"membership":"at_send","needs_approval":true,"sample":[{"user":"alice","body":{"a":1}},{"user":"b\u001b[2J"}]}`: "for                2 users\n" +
			"settled            when it is sent\napproval           needed, with another API key\nto alice           {\"a\":1}\nto b\\u001b[2J     (binary)\n",
		`{"valid":true,"users":0,"exact":false,"membership":"at_delivery","needs_approval":false,"next_runs":["x","y"],"sample":[]}`: "for       nobody can tell for how many without looking at everyone\n" +
			"settled   when a device comes to it\napproval  not needed\nnext      x, y\n",
		`{"valid":true,"users":5,"devices":7,"exact":false,"membership":"at_delivery","sample":[]}`: "for       about 7 devices of 5 users\n",
	} {
		f := newFakeServer(t, 200, answer)
		r := carillon(t, nil, "", "tasks", "create", "--data", devData(t, f.URL, ""), "--everyone", "--body", "1", "--validate-only")
		got, wanted := strings.Join(strings.Fields(r.out), " "), strings.Join(strings.Fields(want), " ")
		if r.code != exitOK || !strings.HasPrefix(got, wanted) || f.last(t).key != "" {
			t.Errorf("got\n%s\nwant\n%s", r.out, want)
		}
	}
}

// shown returns a task with numbers in all places.
func shown(t *testing.T) *shownTask {
	t.Helper()
	task, err := readTask([]byte(`{"id":"7","state":"running","name":"Sale\u001b[2J","created":"2026-11-27T10:00:00Z","by":{"key":"k1","name":"marketing","at":"c"},
		"needs_approval":true,"approved_by":{"key":"k2","at":"2026-11-27T10:30:00Z"},"to":{"list":"9"},"message":{"body":{"text":"a long text that has no place in a line of eighty columns at all"}},
		"template":true,"test_group":["alice","bob","c","d","e","f","g"],"pace":{"per_second":500},"deadline":"2026-11-28T00:00:00Z",
		"progress":{"users":1000,"exact":true,"membership":"at_send","written":418,"left_out":2,"percent":42,"per_second":497.6,"expected_end":"2026-11-27T11:10:00Z","started":"2026-11-27T11:00:00Z"},
		"funnel":{"audience":1200,"exact":true,"online":700,"waiting":360,"sent":800,"in_flight":100,"acknowledged":700,"displayed":12,"clicked":0,"expired":5,"dropped":{"limit":30,"offline":5}},
		"moves":[{"move":"resume","from":"draft","to":"awaiting_approval","at":"2026-11-27T10:00:00Z","by":{"key":"k1"}},{"move":"begin","from":"scheduled","to":"running","at":"2026-11-27T11:00:00Z"},
		{"move":"pause","from":"running","to":"paused","at":"2026-11-27T11:01:00Z","by":{"key":"k1"},"reason":"slow\u001b[2J"}],"allowed":["pause","stop"]}`))
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestTasksShow_OneView(t *testing.T) {
	got := strings.Join(shown(t).view(80, 2, time.Date(2026, 11, 27, 11, 5, 0, 0, time.UTC)), "\n")
	want := `task 7 "Sale\x1b[2J"
running: written for 418 of 1000 users, 2 had it in the test

[################......................]  42.0 %  418 of 1000 users, 2 had it...

pace          500 users a second, now 498 users a second
expected end  2026-11-27T11:10:00Z, in 5m0s
to            {"list":"9"}, settled when it started
message       template {"body":{"text":"a long text that has no place in a li...
test group    alice, bob, c, d, e and 2 more
made          2026-11-27T10:00:00Z by "marketing" (key k1)
approved      2026-11-27T10:30:00Z by key k2
deadline      2026-11-28T00:00:00Z
started       2026-11-27T11:00:00Z

DEVICES
audience             1200  100.0 %  ############################################
online when written   700   58.3 %  ##########################
sent                  800   66.7 %  #############################
acknowledged          700   58.3 %  ##########################
displayed              12    1.0 %  #
clicked                 0    0.0 %

NOT ACKNOWLEDGED
waiting               360   30.0 %  #############
in flight             100    8.3 %  ####
expired                 5    0.4 %  #
dropped (limit)        30    2.5 %  #
dropped (offline)       5    0.4 %  #

MOVES
2026-11-27T11:00:00Z  begin  scheduled > running
2026-11-27T11:01:00Z  pause  running > paused by key k1: slow\u001b[2J

now allowed: pause, stop`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if line := shown(t).line(time.Unix(0, 0)); line != "1970-01-01T00:00:00Z running: written for 418 of 1000 users, 2 had it in the test; "+
		"42.0 %, 498 users a second; devices: 700 acknowledged, 100 in flight, 360 waiting" {
		t.Errorf("in one line: %q", line)
	}
}

func TestTasksShow_SaysHowItStands(t *testing.T) {
	for task, want := range map[string]string{
		`{"state":"draft"}`: "a draft:", `{"state":"awaiting_approval"}`: "awaiting_approval:", `{"state":"scheduled","next_run":"N"}`: "it recurs, next at N",
		`{"state":"scheduled","start":"S"}`: "it starts at S", `{"state":"paused","reason":"test_group"}`: "paused (test_group): the test group has it",
		`{"state":"paused","reason":"switched_off"}`:                                          "until tasks are switched on",
		`{"state":"paused","reason":"why","progress":{"users":3,"exact":true,"written":1}}`:   "paused (why): it waits until it is resumed, written for 1 of 3 users",
		`{"state":"paused","progress":{"users":3,"written":1}}`:                               "1 of about 3 users",
		`{"state":"running","progress":{"percent":25}}`:                                       "running: written for 25.0 % of the product's users",
		`{"state":"recalling","reason":"why","progress":{"taken_back":1}}`:                    "recalling (why): taken back from 1 user so far",
		`{"state":"stopped","reason":"deadline","progress":{"users":3,"exact":true}}`:         "stopped (deadline): written for 0 of 3 users",
		`{"state":"stopped","progress":{"recalled":"R"}}`:                                     "stopped: its message was taken back",
		`{"state":"failed","reason":"list_not_found","progress":{"users":3,"exact":true}}`:    "failed (list_not_found): written for 0 of 3 users",
		`{"state":"completed","progress":{"users":3,"exact":true,"written":3,"percent":100}}`: "completed: written for 3 of 3 users",
	} {
		s, err := readTask([]byte(task))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.stands(); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", task, got, want)
		}
	}
}

func TestTasksList_EndsWhereEnoughAreListed(t *testing.T) {
	f := newFakeServer(t, 200, `{"tasks":[`+madeTask+`,`+madeTask+`,`+madeTask+`],"next_cursor":"5"}`)
	dir := devData(t, f.URL, "")
	for _, c := range [][2]int{{2, 1}, {3, 1}, {4, 2}, {7, 3}} {
		n, asked := c[0], c[1]
		f.got = nil
		r := carillon(t, nil, "", "tasks", "list", "--data", dir, "--limit", fmt.Sprint(n))
		if got := strings.Count(r.out, "\n") - 1; got != n || len(f.got) != asked {
			t.Errorf("--limit %d: %d tasks in %d requests, want %d", n, got, len(f.got), asked)
		}
	}
	if got := f.last(t).path; got != "/v1/tasks?limit=100&cursor=5" {
		t.Errorf("the next page was asked for at %s", got)
	}
}

// made makes an API key of the development gateway with a scope, and returns the variable that has it.
func made(t *testing.T, dir, scope string) string {
	t.Helper()
	r := carillon(t, nil, "", "key", "create", "--data", dir, "--kind", "api", "--scope", scope)
	if r.code != exitOK {
		t.Fatal(r.errOut)
	}
	return envAPIKey + "=" + strings.TrimSpace(r.out)
}

// Every subcommand, at a gateway.
func TestTasks_FromAListToItsEnd(t *testing.T) {
	dir := devGateway(t)
	do := func(code int, args string, more ...string) result {
		t.Helper()
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", append(strings.Fields(args), more...)...)
		if r.code != code {
			t.Fatalf("%s: code %d: %s", args, r.code, r.errOut)
		}
		return r
	}
	see := func(r result, want string) {
		t.Helper()
		if !strings.Contains(r.out+r.errOut, want) {
			t.Errorf("%q is not in\n%s%s", want, r.out, r.errOut)
		}
	}
	list := writeFile(t, "user,first_name\nalice,Alice\nbob,\n,nobody\nalice,again\ncathy,Cathy,more\n")
	r := do(exitOK, "lists upload --name Customers "+list)
	see(r, "line 4: empty: there is no user\nline 6: not_one_of: ")
	see(r, "of 2 users, with the variables first_name; 2 lines wrong and passed over; 1 user stood in it again")
	id := strings.TrimSpace(r.out)
	see(do(exitFailed, "lists upload --strict "+list), "list_bad_lines")
	see(do(exitOK, "lists list"), id+"  Customers  2      first_name")
	see(do(exitOK, "lists show "+id), "variables  first_name")

	const body = `{"text":"Hello {{first_name|there}}"}`
	r = do(exitOK, "tasks create --validate-only --template --list "+id+" --body", body)
	see(r, `{"text":"Hello there"}`)
	see(r, "2 users")

	do(exitOK, "tasks switch off --reason prices")
	see(do(exitOK, "tasks switch"), "(prices)")
	made1 := do(exitOK, "tasks create --template --name Sale --test-group bob --list-file "+list+" --body", body)
	see(made1, "line 4: empty")
	task := strings.TrimSpace(made1.out)
	see(do(exitOK, "tasks pace --per-second 1000 "+task), "goes 1000 users a second")
	do(exitOK, "tasks switch on")

	// The test group gets it, and then it waits. Whoever watches sees it resumed by somebody else, and then completed.
	var said bytes.Buffer
	ended := make(chan int, 1)
	lines := make(chan string, 100)
	a := &app{stdin: strings.NewReader(""), stdout: lineWriter(lines), stderr: &said}
	go func() { ended <- a.run(t.Context(), []string{"tasks", "show", "--data", dir, "--watch", task}) }()
	for line := range lines {
		if strings.Contains(line, "paused (test_group)") {
			break
		}
	}
	do(exitOK, "tasks resume "+task)
	if code := <-ended; code != exitOK {
		t.Errorf("watching ended with %d: %s", code, &said)
	}
	r = do(exitOK, "tasks show "+task)
	see(r, "100.0 %")
	see(r, "show      running > paused: test_group")
	see(do(exitOK, "tasks list --state completed"), task+"  Sale  completed  100.0 %")
	if r := do(exitOK, "tasks list --state failed"); strings.Contains(r.out, task) {
		t.Errorf("it is listed among those that failed: %s", r.out)
	}
	see(do(exitFailed, "tasks pause "+task), "task_move")
	see(do(exitFailed, "tasks pace --unlimited "+task), "task_move")

	draft := strings.TrimSpace(do(exitOK, "tasks clone "+task).out)
	see(do(exitOK, "tasks show "+draft), "cloned from  "+task)
	do(exitOK, "tasks stop --reason no "+draft)
	see(do(exitFailed, "tasks show --watch "+draft), "is stopped (no)")
	do(exitOK, "tasks delete "+draft)
	see(do(exitFailed, "tasks show "+draft), "task_not_found")

	see(do(exitOK, "tasks recall --reason price "+task), "is recalling (price)")
	see(do(exitOK, "tasks show --json --watch "+task), `"state":"stopped"`)
	do(exitOK, "tasks create --user alice --body 1 --per-second 1 --watch")

	// Everyone is for two to decide about.
	everyone := strings.TrimSpace(do(exitOK, "tasks create --everyone --body 1").out)
	see(do(exitFailed, "tasks approve "+everyone), "approval_by_maker")
	if r := carillon(t, []string{"CARILLON_DATA=" + dir, made(t, dir, "tasks:approve")}, "", "tasks", "approve", everyone); r.code != exitOK {
		t.Errorf("approve: %s", r.errOut)
	}
	see(do(exitOK, "tasks show --watch "+everyone), "completed")
	do(exitOK, "product update dev --task-approval-everyone=false")
	see(do(exitOK, "tasks create --everyone --body 1 --start 1h"), "scheduled: it starts at")

	do(exitOK, "lists delete "+id)
	for _, args := range []string{"lists show " + id, "lists delete " + id, "lists show x", "tasks create --body 1 --list " + id, "tasks show 99", "tasks show x",
		"tasks show --watch 99", "tasks approve 99", "tasks resume 99", "tasks pause 99", "tasks stop 99", "tasks recall 99", "tasks pace --unlimited 99", "tasks clone 99",
		"tasks delete 99", "tasks create --everyone --body 1 --cron nonsense", "lists upload " + writeFile(t, "name\nalice\n"), "lists upload /no/where"} {
		do(exitFailed, args)
	}
}

// lineWriter sends what is written, line by line.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func TestLists_UploadLooksAtTheFile(t *testing.T) {
	var media, query, sent string
	var length int64
	f := newFakeServer(t, 0, "")
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		media, query, sent, length = r.Header.Get("Content-Type"), r.URL.RawQuery, b.String(), r.ContentLength
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"id":"9","users":1,"errors":[],"bad_lines":2}`))
	})
	dir := devData(t, f.URL, "")
	for text, want := range map[string]string{
		"user\nalice\n": "text/csv", "": "text/csv", "\xef\xbb\xbfuser\n": "text/csv", "{\"user\":\"alice\"}\n": "application/x-ndjson",
		"\xef\xbb\xbf \n {\"user\":\"alice\"}\n": "application/x-ndjson", strings.Repeat("\n", 100<<10) + "{}": "text/csv", strings.Repeat("user\n", 300<<10): "text/csv",
	} {
		r := carillon(t, nil, text, "lists", "upload", "--data", dir, "-")
		if r.code != exitOK || r.out != "9\n" || media != want || sent != text {
			t.Errorf("%.20q: code %d, printed %q, sent as %s, %d bytes: %s", text, r.code, r.out, media, len(sent), r.errOut)
		}
		if shows := strings.Contains(r.errOut, "uploading: "); shows != (len(text) > uploadShown) {
			t.Errorf("%d bytes: it says %q", len(text), r.errOut)
		}
	}
	r := carillon(t, nil, "", "lists", "upload", "--data", dir, "--name", "a b", "--strict", writeFile(t, "user\n"))
	if query != "name=a+b&strict=true" || length != 5 || !strings.Contains(r.errOut, "and 2 lines more that are wrong\n") {
		t.Errorf("asked for %s with %d bytes, said %q", query, length, r.errOut)
	}
	r = carillon(t, nil, "user\n", "lists", "upload", "--data", dir, "--json", "-")
	if !json.Valid([]byte(r.out)) {
		t.Errorf("printed %q", r.out)
	}
}

// A refusal that comes before the file is read to its end is heard.
func TestLists_UploadThatIsRefusedSaysWhy(t *testing.T) {
	dir := devGateway(t)
	text := "nobody\n" + strings.Repeat("alice\n", 1<<20)
	for range 5 {
		r := carillon(t, nil, text, "lists", "upload", "--data", dir, "-")
		if r.code != exitFailed || !strings.Contains(r.errOut, "list_malformed") {
			t.Fatalf("code %d: %s", r.code, r.errOut)
		}
	}
}

func TestTasksCreate_AListThatIsUploadedIsNotUploadedAgain(t *testing.T) {
	f := newFakeServer(t, 0, "")
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/lists" {
			_, _ = w.Write([]byte(`{"id":"9","users":1}`))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	r := carillon(t, nil, "user\nalice\n", "tasks", "create", "--data", devData(t, f.URL, ""), "--list-file", "-", "--body", "1")
	if r.code != exitFailed || !strings.Contains(r.errOut, "the list is uploaded: give --list 9 in place of --list-file") {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}
}

// A time from now is from when the task is made, however long the upload took.
func TestTasksCreate_TimesFromNowAreFromAfterTheUpload(t *testing.T) {
	var uploaded, start time.Time
	f := newFakeServer(t, 0, "")
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/lists" {
			for uploaded = time.Now(); time.Since(uploaded) < 20*time.Millisecond; { // longer than a start is exact
			}
			uploaded = time.Now()
			_, _ = w.Write([]byte(`{"id":"9","users":1}`))
			return
		}
		var b struct{ Start time.Time }
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		start = b.Start
		_, _ = w.Write([]byte(madeTask))
	})
	r := carillon(t, nil, "user\nalice\n", "tasks", "create", "--data", devData(t, f.URL, ""), "--list-file", "-", "--body", "1", "--start", "1s")
	if r.code != exitOK || start.Before(uploaded.Add(999*time.Millisecond)) {
		t.Errorf("code %d: it starts %v after the upload: %s", r.code, start.Sub(uploaded), r.errOut)
	}
}
