package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
)

type tasksCmd struct {
	Create  tasksCreateCmd  `cmd:"" help:"Make a task."`
	List    tasksListCmd    `cmd:"" help:"List tasks."`
	Show    tasksShowCmd    `cmd:"" help:"Show a task, or watch it."`
	Approve tasksApproveCmd `cmd:"" help:"Approve a task that waits for it."`
	Resume  tasksResumeCmd  `cmd:"" help:"Have a task go on, or hand in a draft."`
	Pause   tasksPauseCmd   `cmd:"" help:"Have a task wait."`
	Stop    tasksStopCmd    `cmd:"" help:"End a task."`
	Recall  tasksRecallCmd  `cmd:"" help:"End a task and take its message back."`
	Pace    tasksPaceCmd    `cmd:"" help:"Change how fast a task goes."`
	Clone   tasksCloneCmd   `cmd:"" help:"Make a draft like a task."`
	Delete  tasksDeleteCmd  `cmd:"" help:"Forget a task that has ended."`
	Switch  tasksSwitchCmd  `cmd:"" help:"Switch all tasks of the product off, or on again."`
}

// taskFlags say which task is meant.
type taskFlags struct {
	publicFlags
	ID string `arg:"" help:"The task's id."`
}

func (f *taskFlags) path() string { return "/v1/tasks/" + url.PathEscape(f.ID) }

// readTask reads a task.
func readTask(b []byte) (*shownTask, error) {
	var t shownTask
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &t, nil
}

// moveFlags are those of a move.
type moveFlags struct {
	taskFlags
	Reason string `placeholder:"TEXT" help:"Why, for people: the task shows it."`
	JSON   bool   `name:"json" help:"Print the task as it is then, as it came."`
}

// move makes a move, and says what it came to.
func (f *moveFlags) move(ctx context.Context, a *app, move string) error {
	t, err := f.target(a)
	if err != nil {
		return err
	}
	return f.moveAt(ctx, a, t, move)
}

func (f *moveFlags) moveAt(ctx context.Context, a *app, t target, move string) error {
	body := make(map[string]string)
	if f.Reason != "" {
		body["reason"] = f.Reason
	}
	b, err := t.call(ctx, http.MethodPost, f.path()+"/"+move, body, nil)
	if err != nil {
		if unknown(err) {
			err = fmt.Errorf("%w\nwhether it was done is unknown; repeating the command does no harm", err)
		}
		return err
	}
	return f.report(a, b)
}

// report says how a task is now.
func (f *moveFlags) report(a *app, answer []byte) error {
	if f.JSON {
		a.print("%s", bytes.TrimSpace(answer))
		return nil
	}
	task, err := readTask(answer)
	if err != nil {
		return err
	}
	a.print("%s", printable("task "+task.ID+" is "+task.stands()))
	return nil
}

type tasksApproveCmd struct{ moveFlags }

// Help is shown under --help.
func (tasksApproveCmd) Help() string {
	return `Lets a task start that waits in awaiting_approval. The API key has to be another one than the one that made the task, or handed it
in, and needs the scope tasks:approve. Look at what you approve first: carillon tasks show ID.

Example:

    carillon tasks approve 7345881023471616 --reason "Text and prices are right."`
}

// Run executes the command.
func (c *tasksApproveCmd) Run(ctx context.Context, a *app) error { return c.move(ctx, a, "approve") }

type tasksResumeCmd struct{ moveFlags }

// Help is shown under --help.
func (tasksResumeCmd) Help() string {
	return `Has a task go on that was paused, that waits after its test group, or that failed; it goes on where it was, and nobody gets the
message twice. Hands in a draft. The API key needs the scope tasks:write.

Example:

    carillon tasks resume 7345881023471616`
}

// Run executes the command.
func (c *tasksResumeCmd) Run(ctx context.Context, a *app) error { return c.move(ctx, a, "resume") }

type tasksPauseCmd struct{ moveFlags }

// Help is shown under --help.
func (tasksPauseCmd) Help() string {
	return `When the command succeeds, the task writes nothing more until it is resumed, whichever node runs it. What was written stays, and
goes on its way. The API key needs the scope tasks:write.

Example:

    carillon tasks pause 7345881023471616 --reason "The shop is slow."`
}

// Run executes the command.
func (c *tasksPauseCmd) Run(ctx context.Context, a *app) error { return c.move(ctx, a, "pause") }

type tasksStopCmd struct{ moveFlags }

// Help is shown under --help.
func (tasksStopCmd) Help() string {
	return `When the command succeeds, the task writes nothing more, and it never goes on. What was written stays, and goes on its way: to take it
back there is "carillon tasks recall", also after this. The API key needs the scope tasks:write.

Example:

    carillon tasks stop 7345881023471616`
}

// Run executes the command.
func (c *tasksStopCmd) Run(ctx context.Context, a *app) error { return c.move(ctx, a, "stop") }

type tasksRecallCmd struct {
	moveFlags
	Yes bool `short:"y" help:"Do not ask."`
}

// Help is shown under --help.
func (tasksRecallCmd) Help() string {
	return `Ends the task and takes its message back: where it waits it goes, and devices that have it are told to remove it. What somebody has
read nobody takes back. It is answered at once; the task is recalling until that is done, then stopped.

On a terminal it says what it will do, and asks, unless you give --yes; for that the API key needs the scope tasks:read. Otherwise it
needs tasks:write.

Example:

    carillon tasks recall 7345881023471616 --reason "Wrong price."`
}

// errNotRecalled says that somebody who was asked did not say yes.
var errNotRecalled = errors.New("nothing was done")

// Run executes the command.
func (c *tasksRecallCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if a.asks && !c.Yes {
		if err := c.ask(ctx, a, t); err != nil {
			return err
		}
	}
	return c.moveAt(ctx, a, t, "recall")
}

// ask says what a recall will do, and returns an error unless the answer is yes.
func (c *tasksRecallCmd) ask(ctx context.Context, a *app, t target) error {
	b, err := t.call(ctx, http.MethodGet, c.path(), nil, nil)
	if err != nil {
		return err
	}
	task, err := readTask(b)
	if err != nil {
		return err
	}
	f := &task.Funnel
	about := ""
	if !f.Exact {
		about = "about "
	}
	a.say("%s", printable(fmt.Sprintf("task %s %s is %s", task.ID, quoteName(task.Name), task.stands())))
	a.say("its message was written for %s%s; %s acknowledged it, and %d wait for it", about, plural(task.Progress.Written, "user"),
		plural(f.Acknowledged, "device"), f.Waiting)
	a.say("taken back, it goes where it waits, and devices that have it are told to remove it; the task never goes on")
	fmt.Fprint(a.stderr, "take it back? [y/N] ")
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && line == "" {
		a.say("")
		return errNotRecalled
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errNotRecalled
}

func quoteName(name string) string {
	if name == "" {
		return "(without a name)"
	}
	return fmt.Sprintf("%q", name)
}

// paceFlags say how fast a task goes.
type paceFlags struct {
	PerSecond float64       `xor:"pace" placeholder:"N" help:"At most so many users a second, 0.01 to 1000000."`
	Over      time.Duration `xor:"pace" placeholder:"1h" help:"Evenly over so long, in whole seconds up to 720h."`
}

// taskPace is a pace, as requests and answers have it.
type taskPace struct {
	PerSecond   float64 `json:"per_second,omitempty"`
	OverSeconds int64   `json:"over_seconds,omitempty"`
}

// String returns the pace for people.
func (p *taskPace) String() string {
	switch {
	case p == nil:
		return "as fast as it goes"
	case p.OverSeconds > 0:
		return "evenly over " + (time.Duration(p.OverSeconds) * time.Second).String()
	}
	return number(p.PerSecond) + " users a second"
}

// pace returns what the flags say, nil if they say nothing.
func (f *paceFlags) pace() (*taskPace, error) {
	switch {
	case f.PerSecond < 0:
		return nil, usagef("--per-second is above zero")
	case f.Over < 0 || f.Over%time.Second != 0:
		return nil, usagef("--over is a number of whole seconds, as in 90s or 2h")
	case f.PerSecond == 0 && f.Over == 0:
		return nil, nil
	}
	return &taskPace{PerSecond: f.PerSecond, OverSeconds: int64(f.Over / time.Second)}, nil
}

type tasksPaceCmd struct {
	taskFlags
	paceFlags
	Unlimited bool `xor:"pace" help:"As fast as it goes."`
	JSON      bool `name:"json" help:"Print the task as it is then, as it came."`
}

// Help is shown under --help.
func (tasksPaceCmd) Help() string {
	return `Changes how fast a task goes, also while it runs: it goes on at the new pace within two seconds. The API key needs the scope
tasks:write.

Example:

    carillon tasks pace 7345881023471616 --per-second 500
    carillon tasks pace 7345881023471616 --over 1h
    carillon tasks pace 7345881023471616 --unlimited`
}

// Run executes the command.
func (c *tasksPaceCmd) Run(ctx context.Context, a *app) error {
	pace, err := c.pace()
	if err != nil {
		return err
	}
	if pace == nil && !c.Unlimited {
		return usagef("how fast? give --per-second, --over or --unlimited")
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	b, err := t.call(ctx, http.MethodPatch, c.path(), map[string]any{"pace": pace}, nil)
	if err != nil {
		return err
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(b))
		return nil
	}
	task, err := readTask(b)
	if err != nil {
		return err
	}
	a.print("%s", printable("task "+task.ID+" goes "+task.Pace.String()+" from now on"))
	return nil
}

type tasksCloneCmd struct {
	taskFlags
	IdempotencyKey string `placeholder:"KEY" help:"Name of this request: repeating it makes the draft once. One is made up if you give none."`
	JSON           bool   `name:"json" help:"Print the draft as it came."`
}

// Help is shown under --help.
func (tasksCloneCmd) Help() string {
	return `Makes a draft with the same audience, message, pace and test group, and with neither start, deadline nor time table. Nothing happens
until it is handed in with "carillon tasks resume". Standard output has the draft's id alone. The API key needs the scope tasks:write.

Example:

    carillon tasks clone 7345881023471616`
}

// Run executes the command.
func (c *tasksCloneCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	key := first(c.IdempotencyKey, "cli-"+rand.Text())
	b, err := t.call(ctx, http.MethodPost, c.path()+"/clone", nil, http.Header{"Idempotency-Key": {key}})
	if err != nil {
		return unsure(err, "a draft was made", key)
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(b))
		return nil
	}
	task, err := readTask(b)
	if err != nil {
		return err
	}
	a.say("%s", printable("made draft "+task.ID+"; hand it in with: carillon tasks resume "+task.ID))
	a.print("%s", printable(task.ID))
	return nil
}

// unsure returns the error of a request with an idempotency key, and how to find out whether it was carried out if that is unknown.
func unsure(err error, done, key string) error {
	if !unknown(err) {
		return err
	}
	return fmt.Errorf("%w\nwhether %s is unknown; repeat the command with --idempotency-key %s", err, done, key)
}

type tasksDeleteCmd struct{ taskFlags }

// Help is shown under --help.
func (tasksDeleteCmd) Help() string {
	return `Forgets a task that has ended, and what was counted of it. Its message stays where it is: recall it first if it is to go. Tasks are
forgotten by themselves ninety days after they ended. The API key needs the scope tasks:write.

Example:

    carillon tasks delete 7345881023471616`
}

// Run executes the command.
func (c *tasksDeleteCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodDelete, c.path(), nil, nil); err != nil {
		return err
	}
	a.print("forgot task %s", c.ID)
	return nil
}

type tasksSwitchCmd struct {
	publicFlags
	To     string `arg:"" optional:"" help:"on or off; left out, it is shown."`
	Reason string `placeholder:"TEXT" help:"Why, for people."`
	JSON   bool   `name:"json" help:"Print the switch as it came."`
}

// Help is shown under --help.
func (tasksSwitchCmd) Help() string {
	return `One switch for all tasks of the product. Switched off, every task that runs or is scheduled is paused, and none that is made or resumed
meanwhile writes anything; when the command succeeds, nothing more is written. Recalls go on. Switched on again, those that the switch
paused go on. The API key needs the scope tasks:write, to look tasks:read.

Example:

    carillon tasks switch off --reason "Wrong prices in the shop."`
}

// Run executes the command.
func (c *tasksSwitchCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.To != "" && c.To != "on" && c.To != "off":
		return usagef("write on or off, or neither to see how it is")
	case c.To == "" && c.Reason != "":
		return usagef("--reason is for switching: write on or off")
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	method, body := http.MethodGet, any(nil)
	if c.To != "" {
		set := map[string]any{"off": c.To == "off"}
		if c.Reason != "" {
			set["reason"] = c.Reason
		}
		method, body = http.MethodPut, set
	}
	b, err := t.call(ctx, method, "/v1/task-switch", body, nil)
	if err != nil {
		if c.To != "" && unknown(err) {
			err = fmt.Errorf("%w\nwhether all tasks are switched is unknown; repeating the command does no harm", err)
		}
		return err
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(b))
		return nil
	}
	var s struct {
		Off    bool
		Reason string
		By     *actor
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	text := "tasks are switched on"
	if s.Off {
		text = "tasks are switched off: nothing is written until they are switched on again"
	}
	if s.Reason != "" {
		text += " (" + s.Reason + ")"
	}
	if s.By != nil {
		text += ", since " + s.By.At + by(s.By)
	}
	a.print("%s", printable(text))
	return nil
}

type tasksListCmd struct {
	publicFlags
	State  []string `sep:"none" enum:"draft,awaiting_approval,scheduled,running,paused,stopped,recalling,completed,failed" help:"Only those in this state, one of ${enum}; may be repeated."`
	Parent string   `placeholder:"ID" help:"Only occurrences of that recurring task."`
	Limit  int      `default:"50" placeholder:"N" help:"The newest N; 0 for all."`
	JSON   bool     `name:"json" help:"Print each task as it came, one a line."`
}

// Help is shown under --help.
func (tasksListCmd) Help() string {
	return `The newest first. The API key needs the scope tasks:read.

Example:

    carillon tasks list --state running --state paused`
}

// errEnough ends a walk through a list.
var errEnough = errors.New("enough")

// Run executes the command.
func (c *tasksListCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 0 {
		return usagef("--limit is not below zero")
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	query := url.Values{"state": c.State}
	if c.Parent != "" {
		query.Set("parent", c.Parent)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(table, "ID\tNAME\tSTATE\tDONE\tWRITTEN\tUSERS\tCREATED")
	}
	left := c.Limit
	err = t.pages(ctx, strings.TrimSuffix("/v1/tasks?"+query.Encode(), "?"), "tasks", func(item json.RawMessage) error {
		if c.JSON {
			a.print("%s", item)
		} else if err := tableRow(table, item); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return table.Flush()
}

func tableRow(table *tabwriter.Writer, item json.RawMessage) error {
	t, err := readTask(item)
	if err != nil {
		return err
	}
	state := t.State
	if t.Reason != "" {
		state += " (" + t.Reason + ")"
	}
	users := "-"
	if t.Progress.Users > 0 || t.Progress.Exact {
		users = t.users()
	}
	cells := []string{t.ID, first(t.Name, "-"), state, percent(t.Progress.Percent), fmt.Sprint(t.Progress.Written), users, t.Created}
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	_, err = fmt.Fprintln(table, strings.Join(cells, "\t"))
	return err
}
