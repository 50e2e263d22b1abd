package savertest

import (
	"fmt"
	"reflect"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// The store falls back to an earlier state: a power loss, or a failover to a replica that lagged. Positions that were
// delivered and acknowledged are given again, to other messages. Nothing may be lost to anybody by that.

var lineageCases = []testCase{
	{name: "PositionGivenAgainIsRead", needs: canMark, run: lineageTable},
	{name: "SeveralForksInARow", needs: canMark, run: lineageSeveral},
	{name: "ForksWithoutAppends", needs: canMark, run: lineageNoAppends},
	{name: "IsLoweredToTheSmallestLaterStart", needs: canMark, run: lineageSmallestStart},
	{name: "OfALostBranchIsUnknown", needs: canMark, run: lineageLostBranch},
	{name: "SlotMadeAgainHasAnotherEpoch", needs: canMark, run: lineageSlotAgain},
	{name: "LateAcknowledgementHidesNothing", needs: canMark, run: lineageLateAck},
	{name: "LateAcknowledgementFreesNothingNew", needs: canMark, run: lineageLateAckFrees},
	{name: "KeepsForAWhileWhatAForgottenDeviceMayNeed", needs: canMark, run: lineageForgotten},
	{name: "RecallOfALostMessageSparesItsSuccessor", needs: canMark, run: lineageRecall},
	{name: "LostKeyIsStoredAgain", needs: canMark, run: lineageKey},
	{name: "IsNotedByTheFirstAppend", needs: canMark, run: lineageNotes},
	{name: "CommonSlotsToo", needs: canMark, run: lineageCommon},
	{name: "ReopeningRepeatsNothing", needs: canReopen, run: lineageReopen},
}

// lineageTable: phone was online and saw everything, laptop was offline. Some messages are kept, some lost after
// they were delivered (and acknowledged, which is lost with them), some come after the fall.
func lineageTable(e *env) {
	for _, c := range []struct {
		kept, lost, after int
		ackAll            bool // phone had acknowledged what is kept
	}{
		{0, 1, 1, false}, {1, 1, 0, false}, {1, 1, 1, false}, {1, 1, 1, true}, {1, 3, 1, true},
		{3, 1, 3, true}, {5, 2, 2, false}, {5, 5, 1, true}, {2, 1, 5, true},
	} {
		name := fmt.Sprintf("kept %d, lost %d, after %d, acknowledged %v", c.kept, c.lost, c.after, c.ackAll)
		u := push.UserID(name)
		seen := e.open(u, phone).Starts[push.Own].At
		e.open(u, laptop)
		kept := labelled(name+"/kept", c.kept)
		if c.kept > 0 {
			seen = e.sendAll(u, kept...)
		}
		if c.ackAll {
			e.ackOwn(u, phone, seen)
		}
		mid := seen
		back := e.mark()
		seen = e.sendAll(u, labelled(name+"/lost", c.lost)...)
		e.ackOwn(u, phone, seen)
		back()
		after := labelled(name+"/after", c.after)
		var last push.Place
		for _, l := range after {
			last = e.send(u, l)
		}
		if c.after > 0 && last.Pos != mid.Pos+push.Position(c.after) {
			e.Fatalf("%s: the last lies at %d, want %d", name, last.Pos, mid.Pos+push.Position(c.after))
		}
		st := e.presenting(u, phone, seen, push.Place{}).Starts[push.Own]
		if st.How != saver.Resumed {
			e.Fatalf("%s: start %+v", name, st)
		}
		e.wantFrom(u, push.Own, st.At, join(after))
		e.wantFrom(u, push.Own, seen, join(after))
		st = e.open(u, laptop).Starts[push.Own]
		e.wantFrom(u, push.Own, st.At, join(append(kept, after...)))
		// The late acknowledgement of a session that did not notice.
		e.ackOwn(u, phone, seen)
		st = e.open(u, phone).Starts[push.Own]
		e.wantFrom(u, push.Own, st.At, join(after))
	}
}

func join(labels []string) string {
	s := ""
	for i, l := range labels {
		if i > 0 {
			s += " "
		}
		s += l
	}
	return s
}

func lineageSeveral(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	seen := e.send(alice, "first")
	var all []string
	for round := range 6 {
		back := e.mark()
		// Delivered, acknowledged, and lost. The longer the lost branch, the further ahead its reader stands.
		for i := range 7 - round {
			seen = e.send(alice, fmt.Sprintf("lost%d-%d", round, i))
		}
		e.ackOwn(alice, phone, seen)
		back()
		label := fmt.Sprint("kept", round)
		e.send(alice, label)
		all = append(all, label)
		st := e.presenting(alice, phone, seen, push.Place{}).Starts[push.Own]
		if st.How != saver.Resumed {
			e.Fatalf("round %d: start %+v", round, st)
		}
		e.wantFrom(alice, push.Own, st.At, label)
		e.wantFrom(alice, push.Own, e.open(alice, laptop).Starts[push.Own].At, "first "+join(all))
		if round%2 == 0 {
			seen = saver.HeadOf(ptr(e.state(alice, push.Own))) // it read that one too; otherwise it stays behind
			e.ackOwn(alice, phone, seen)
		} else {
			e.presenting(alice, phone, seen, push.Place{})
			seen = saver.HeadOf(ptr(e.state(alice, push.Own)))
		}
	}
}

func lineageNoAppends(e *env) {
	e.open(alice, phone)
	kept := e.send(alice, "kept")
	e.open(alice, laptop)
	back := e.mark()
	seen := e.sendAll(alice, "lost1", "lost2", "lost3")
	for range 4 {
		back()
		back = e.mark()
		st := e.presenting(alice, phone, seen, push.Place{}).Starts[push.Own]
		if st.How != saver.Resumed || st.At != kept || st.Head != kept.Pos {
			e.Fatalf("start %+v, want it resumed at %+v", st, kept)
		}
		if s := e.state(alice, push.Own); len(s.Notes) != 1 {
			e.Fatalf("a fall without an append was noted: %+v", s.Notes)
		}
	}
	again := e.send(alice, "new")
	if again.Pos != kept.Pos+1 || again.Lineage == kept.Lineage {
		e.Fatalf("the new entry lies at %+v, the one before at %+v", again, kept)
	}
	e.wantFrom(alice, push.Own, seen, "new")
	e.wantFrom(alice, push.Own, kept, "new")
	e.wantFrom(alice, push.Own, e.presenting(alice, phone, seen, push.Place{}).Starts[push.Own].At, "new")
}

func lineageSmallestStart(e *env) {
	one := e.sendAll(alice, "a", "b", "c", "d")
	e.mark()()
	two := e.sendAll(alice, "e", "f")
	e.mark()()
	three := e.sendAll(alice, "g")
	at := func(p push.Place, pos push.Position) push.Place { p.Pos = pos; return p }
	for _, c := range []struct {
		from push.Place
		want push.Position
	}{
		{back(one, 1), one.Pos - 1}, {one, one.Pos}, {at(one, two.Pos), one.Pos}, {at(one, three.Pos), one.Pos},
		{at(two, one.Pos), one.Pos}, {two, two.Pos}, {at(two, three.Pos+9), two.Pos},
		{three, three.Pos}, {at(three, three.Pos+9), three.Pos}, {at(three, one.Pos), one.Pos},
	} {
		if t := e.tail(readOf(alice, push.Own, c.from)); !t.Known || t.Start != at(three, c.want) {
			e.Fatalf("%+v starts at %+v, want position %d", c.from, t.Start, c.want)
		}
	}
}

func lineageLostBranch(e *env) {
	e.open(alice, phone)
	e.send(alice, "a")
	back := e.mark()
	back()
	branch := e.send(alice, "b") // under a lineage that is lost as a whole
	e.ackOwn(alice, phone, branch)
	back()
	e.sendAll(alice, "c", "d")
	st := e.presenting(alice, phone, branch, push.Place{}).Starts[push.Own]
	if st.How != saver.Reset || st.At.Pos != e.state(alice, push.Own).Origin {
		e.Fatalf("start %+v, want a reset", st)
	}
	e.wantFrom(alice, push.Own, st.At, "a c d")
	e.ackOwn(alice, phone, branch)
	e.wantAll(alice, push.Own, "a c d")
}

func lineageSlotAgain(e *env) {
	back := e.mark()
	o := e.open(alice, phone)
	e.publish(e.everyone("x"))
	seen := e.sendAll(alice, "a", "b")
	back()
	e.send(alice, "c")
	e.publish(e.everyone("y"))
	if s := e.state(alice, push.Own); s.Epoch == seen.Epoch {
		e.Fatal("a slot that was lost has the same epoch again")
	}
	o = e.presenting(alice, phone, seen, o.Starts[push.Common].At)
	for k, want := range []string{"c", "y"} {
		if st := o.Starts[k]; st.How != saver.Reset {
			e.Fatalf("slot %d starts %+v", k, st)
		}
		e.wantFrom(alice, push.SlotKind(k), o.Starts[k].At, want)
	}
}

func lineageLateAck(e *env) {
	e.open(alice, phone)
	kept := e.send(alice, "kept")
	back := e.mark()
	seen := e.sendAll(alice, "lost1", "lost2")
	back()
	e.ackOwn(alice, phone, seen) // before anything is appended: clamped to the head
	e.wantStored(phone, push.Own, kept)
	e.sendAll(alice, "new1", "new2", "new3")
	e.ackOwn(alice, phone, seen) // and after: lowered to where the new lineage begins
	if got := e.stored(alice, phone, push.Own); got.Pos != kept.Pos {
		e.Fatalf("stored %+v, want position %d", got, kept.Pos)
	}
	e.wantFrom(alice, push.Own, e.open(alice, phone).Starts[push.Own].At, "new1 new2 new3")
}

func lineageLateAckFrees(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	e.send(alice, "kept")
	back := e.mark()
	seen := e.sendAll(alice, "lost1", "lost2", "lost3")
	back()
	e.sendAll(alice, "new1", "new2")
	for _, d := range []push.DeviceID{phone, laptop} {
		e.ackOwn(alice, d, seen)
	}
	e.wantAll(alice, push.Own, "new1 new2")
	// What both really handled is freed as ever, after a while.
	e.s.Clock.Advance(saver.ReopenWithin)
	head := saver.HeadOf(ptr(e.state(alice, push.Own)))
	for _, d := range []push.DeviceID{phone, laptop} {
		e.ackOwn(alice, d, headBack(head))
	}
	e.wantAll(alice, push.Own, "new2")
}

// lineageForgotten: a device of which the store fell back to know nothing is opened again by its room, which takes a moment.
func lineageForgotten(e *env) {
	e.open(alice, phone)
	e.send(alice, "kept")
	back := e.mark()
	was := e.open(alice, laptop).Starts
	back()
	for _, to := range []string{"c", "d"} { // also after another fallback right behind the first
		e.ackOwn(alice, phone, e.send(alice, to))
		back = e.mark()
		back()
	}
	e.wantAll(alice, push.Own, "c d")
	e.presenting(alice, laptop, was[push.Own].At, was[push.Common].At)
	e.wantFrom(alice, push.Own, e.open(alice, laptop).Starts[push.Own].At, "c d")
	e.s.Clock.Advance(saver.ReopenWithin)
	last := e.send(alice, "e")
	e.ackOwn(alice, phone, last)
	e.wantFrom(alice, push.Own, e.open(alice, laptop).Starts[push.Own].At, "c d e") // now it holds them back
	e.ackOwn(alice, laptop, last)
	e.s.Clock.Advance(saver.ReopenWithin) // for "e" was the first under the last lineage
	e.wantAll(alice, push.Own, "e")
	last = e.send(alice, "f")
	e.ackOwn(alice, laptop, last)
	e.wantAll(alice, push.Own, "f")
	e.ackOwn(alice, phone, last)
	e.wantAll(alice, push.Own, "")
}

func headBack(p push.Place) push.Place { return back(p, 1) }

func lineageRecall(e *env) {
	e.send(alice, "kept")
	back := e.mark()
	lost := e.to("lost", alice)
	was := e.publish(lost).Own[0].Place
	back()
	if at := e.send(alice, "new"); at.Pos != was.Pos {
		e.Fatalf("the new entry lies at %d, want %d", at.Pos, was.Pos)
	}
	_, err := e.s.Store.Recall(e.ctx, e.recalling(lost.Message.ID))
	e.wantKind("recall of a lost message", err, push.KindNotFound)
	e.wantAll(alice, push.Own, "kept new")
	e.recall(e.byName["kept"])
	e.wantAll(alice, push.Own, "new -kept")
}

func lineageKey(e *env) {
	first := e.publish(e.keyed("first", "k1", 1, alice))
	back := e.mark()
	e.publish(e.keyed("lost", "k2", 2, alice))
	back()
	e.wantRepeat(e.publish(e.keyed("first again", "k1", 1, alice)), first.Message)
	if r := e.publish(e.keyed("lost again", "k2", 2, alice)); r.Repeated {
		e.Fatal("a repeat of what was lost is taken for stored")
	}
	e.wantAll(alice, push.Own, "first lost again")
}

func lineageNotes(e *env) {
	first := e.sendAll(alice, "a", "b")
	want := []push.Note{{Lineage: first.Lineage, Start: first.Pos - 2, At: e.s.Clock.Milli()}}
	for i := range 3 {
		e.mark()()
		e.s.Clock.Advance(time.Hour)
		e.open(alice, phone)
		e.wantAll(alice, push.Own, join(append([]string{"a", "b"}, labelled("c", i)...)))
		if got := e.state(alice, push.Own).Notes; !reflect.DeepEqual(got, want) {
			e.Fatalf("reading and opening made the notes %+v, want %+v", got, want)
		}
		head := e.state(alice, push.Own).Head
		at := e.send(alice, fmt.Sprint("c", i+1))
		if at.Lineage != e.lineage() {
			e.Fatalf("the entry is of lineage %d, the store of %d", at.Lineage, e.lineage())
		}
		want = append(want, push.Note{Lineage: at.Lineage, Start: head, At: e.s.Clock.Milli()})
		if got := e.state(alice, push.Own).Notes; !reflect.DeepEqual(got, want) {
			e.Fatalf("notes %+v, want %+v", got, want)
		}
	}
}

func lineageCommon(e *env) {
	e.open(alice, phone)
	e.publish(e.everyone("kept"))
	back := e.mark()
	e.publish(e.everyone("lost1"))
	e.publish(e.everyone("lost2"))
	seen := saver.HeadOf(ptr(e.state(alice, push.Common)))
	e.ackCommon(alice, phone, seen)
	back()
	e.publish(e.everyone("new"))
	st := e.presenting(alice, phone, push.Place{}, seen).Starts[push.Common]
	if st.How != saver.Resumed {
		e.Fatalf("start %+v", st)
	}
	e.wantFrom(alice, push.Common, st.At, "new")
	e.ackCommon(alice, phone, seen)
	e.wantFrom(alice, push.Common, e.open(alice, phone).Starts[push.Common].At, "new")
}

func lineageReopen(e *env) {
	e.open(alice, phone)
	seen := e.sendAll(alice, "a", "b")
	for i := range 4 {
		was := e.lineage()
		e.s.Store = e.s.Reopen(e.T)
		if e.lineage() == was {
			e.Fatal("the store was opened again and kept its lineage")
		}
		e.wantFrom(alice, push.Own, seen, "")
		if i%2 == 0 {
			label := fmt.Sprint("c", i)
			at := e.send(alice, label)
			if at.Pos != seen.Pos+1 || at.Epoch != seen.Epoch {
				e.Fatalf("the next entry lies at %+v, after %+v", at, seen)
			}
			e.wantFrom(alice, push.Own, e.presenting(alice, phone, seen, push.Place{}).Starts[push.Own].At, label)
			seen = at
		}
		e.s.Clock.Advance(saver.ReopenWithin)
		e.ackOwn(alice, phone, seen)
		e.wantAll(alice, push.Own, "")
	}
}
