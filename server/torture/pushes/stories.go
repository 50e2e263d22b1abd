package pushes

import (
	"context"
	"errors"
	"strconv"
	"time"

	"carillon/server/push"
)

// want is what the slots have to hold of a task.
type want struct {
	name string
	id   push.MsgID
	end  seen
}

// story is what happens to one task.
type story struct {
	name string
	tell func(ctx context.Context, name string) (want, error)
}

func (s *siege) stories() []story {
	all := []story{{"killed", s.killed}, {"stopped", s.stopped}}
	if !s.cfg.Embedded {
		all = append(all, story{"frozen", s.frozen})
	}
	return append(all, story{"recalled", s.recalled})
}

// begin makes a task.
func (s *siege) begin(ctx context.Context, name string) (w want, err error) {
	s.say("task %q", name)
	id, err := s.create(ctx, name)
	if err != nil {
		return w, err
	}
	n, err := strconv.ParseInt(id, 10, 64)
	return want{name: name, id: push.MsgID(n), end: seen{ID: id}}, err
}

// most is how long after it was found somebody who runs a task is let live: so that a task of that many users lasts.
func (s *siege) most() time.Duration {
	return max(time.Duration(s.cfg.Users)*time.Microsecond*15/time.Duration(max(s.cfg.Kills, 1)), 20*time.Millisecond)
}

// killed kills whoever runs the task, again and again, and pauses it now and then.
func (s *siege) killed(ctx context.Context, name string) (w want, err error) {
	if w, err = s.begin(ctx, name); err != nil {
		return w, err
	}
	id := w.end.ID
	for s.rep.Kills < s.cfg.Kills {
		n, err := s.runner(ctx, id, nil, "completed")
		if err != nil {
			return w, err
		}
		if n == nil {
			s.say("it was done before it was killed %d times", s.cfg.Kills)
			break
		}
		if s.rng.IntN(5) == 0 {
			if err := s.pause(ctx, id); err != nil {
				return w, err
			}
			continue
		}
		if err := s.kill(ctx, n, s.most()); err != nil {
			return w, err
		}
	}
	w.end, err = s.await(ctx, id, "completed")
	return w, err
}

// pause pauses a task, looks whether it takes effect, and resumes it.
func (s *siege) pause(ctx context.Context, id string) error {
	t, err := s.move(ctx, id, "pause")
	if r, ok := err.(*refused); ok && r.status == 409 {
		return nil // it is done
	}
	if err != nil {
		return err
	}
	s.rep.Pauses++
	sleep(ctx, effect)
	before := s.written(ctx)
	sleep(ctx, time.Second/2)
	if after := s.written(ctx); after != before {
		s.breach("task %s: %v after it was paused %d more users were written", id, effect, after-before)
	}
	if t, err = s.look(ctx, id); err != nil {
		return err
	}
	if t.State != "paused" {
		s.breach("task %s was paused, and is %s", id, t.State)
	}
	_, err = s.move(ctx, id, "resume")
	return err
}

// written returns how many users all centers that can be asked have written in their lives.
func (s *siege) written(ctx context.Context) (n int64) {
	for _, c := range s.centers() {
		if v := s.metric(ctx, c, writtenMetric); v > 0 {
			n += int64(v)
		}
	}
	return n
}

// stopped kills whoever runs the task a few times, and stops it then.
func (s *siege) stopped(ctx context.Context, name string) (w want, err error) {
	if w, err = s.begin(ctx, name); err != nil {
		return w, err
	}
	id := w.end.ID
	for range 3 {
		n, err := s.runner(ctx, id, nil, "completed")
		if err != nil {
			return w, err
		}
		if n != nil {
			if err := s.kill(ctx, n, s.most()); err != nil {
				return w, err
			}
		}
	}
	n, err := s.runner(ctx, id, nil, "completed")
	if err != nil {
		return w, err
	}
	sleep(ctx, time.Duration(s.rng.Int64N(int64(s.most()))))
	if n != nil && s.rng.IntN(2) == 0 {
		n.Kill() // and stopped while nobody knows how far it came
		s.rep.Kills++
		s.say("kill -9 of %s (%d)", n.Name(), s.rep.Kills)
		if s.cfg.Embedded {
			if err := n.Start(ctx); err != nil {
				return w, err
			}
		} else {
			defer n.Start(ctx)
		}
	}
	if _, err := s.move(ctx, id, "stop"); err != nil {
		if r, ok := err.(*refused); !ok || r.status != 409 {
			return w, err
		}
	}
	w.end, err = s.settled(ctx, id, "stopped", "completed")
	return w, err
}

// settled waits until a task has ended, and what it says of itself stays as it is.
func (s *siege) settled(ctx context.Context, id string, states ...string) (t seen, err error) {
	if t, err = s.await(ctx, id, states...); err != nil {
		return t, err
	}
	for quiet := 0; quiet < 5; {
		sleep(ctx, time.Second)
		now, err := s.look(ctx, id)
		if err != nil {
			return t, err
		}
		if quiet++; now.Progress != t.Progress {
			quiet = 0
		}
		t = now
	}
	return t, nil
}

// frozen freezes whoever runs the task past its lease, so that two believe to run it.
func (s *siege) frozen(ctx context.Context, name string) (w want, err error) {
	if w, err = s.begin(ctx, name); err != nil {
		return w, err
	}
	id := w.end.ID
	for range 5 {
		n, err := s.runner(ctx, id, nil, "completed")
		if err != nil {
			return w, err
		}
		if n == nil {
			break
		}
		sleep(ctx, time.Duration(s.rng.Int64N(int64(s.most())+1)))
		s.rep.Freezes++
		s.say("SIGSTOP of %s (%d)", n.Name(), s.rep.Freezes)
		if err := n.Freeze(); err != nil {
			return w, err
		}
		other, err := s.runner(ctx, id, n, "completed")
		if err == nil && other != nil {
			sleep(ctx, time.Duration(s.rng.Int64N(int64(s.most())+1)))
		}
		s.say("SIGCONT of %s", n.Name())
		if thawed := n.Thaw(); err != nil || thawed != nil {
			return w, errors.Join(err, thawed)
		}
	}
	w.end, err = s.await(ctx, id, "completed")
	return w, err
}

// recalled takes a task back in the middle, and kills whoever does so.
func (s *siege) recalled(ctx context.Context, name string) (w want, err error) {
	if w, err = s.begin(ctx, name); err != nil {
		return w, err
	}
	id := w.end.ID
	n, err := s.runner(ctx, id, nil, "completed")
	if err != nil {
		return w, err
	}
	sleep(ctx, 10*s.most())
	if n != nil {
		if err := s.kill(ctx, n, s.most()); err != nil {
			return w, err
		}
	}
	if _, err := s.move(ctx, id, "recall"); err != nil {
		return w, err
	}
	for range 3 {
		n, err := s.runner(ctx, id, nil, "stopped")
		if err != nil {
			return w, err
		}
		if n == nil {
			break
		}
		if err := s.kill(ctx, n, s.most()); err != nil {
			return w, err
		}
	}
	w.end, err = s.settled(ctx, id, "stopped")
	return w, err
}

// judge compares what the slots hold with what the task says.
func (s *siege) judge(w want, h *held) {
	p := &w.end.Progress
	users := int64(s.cfg.Users)
	s.rep.lines = append(s.rep.lines, lineOf(w, h))
	if h.more > 0 || h.backMore > 0 {
		s.breach("%s: %d users have the message more than once, %d its recall", w.name, h.more, h.backMore)
	}
	switch {
	case w.name == "recalled":
		if h.once > 0 {
			s.breach("%s: %d users still have the message", w.name, h.once)
		}
		if h.back != p.Written || p.TakenBack != p.Written {
			s.breach("%s: it says that it was written for %d and taken back from %d, and %d slots say so", w.name, p.Written, p.TakenBack, h.back)
		}
	case w.end.State == "completed":
		if h.once != users || p.Written != users {
			s.breach("%s: %d of %d users have the message; it says %d", w.name, h.once, users, p.Written)
		}
	default:
		if h.once != p.Written {
			s.breach("%s: %d users have the message; it says %d", w.name, h.once, p.Written)
		}
	}
}

func lineOf(w want, h *held) string {
	return w.name + ": " + w.end.State + ", written for " + strconv.FormatInt(w.end.Progress.Written, 10) + "; in the slots once " +
		strconv.FormatInt(h.once, 10) + ", more than once " + strconv.FormatInt(h.more, 10) + ", recalled " + strconv.FormatInt(h.back, 10)
}
