package simulation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/saver"
)

// Tags come from three sides: a device's token names some, the product's server sets those of users and devices, and clients
// join and leave some of their own. Worlds with tags have all three. At rest every session has to have the union of what its token
// names and what the store keeps; and what the store keeps has to be what was answered last, which is history's rule.

// The sets that the store keeps, as history names them.
const (
	userSet   = "user"
	deviceSet = "device"
	joinedSet = "joined"
)

// The tags there are: a tag may be in several sets.
var (
	tokenTags  = []string{"plan/a", "plan/b", "own/a"}
	serverTags = []string{"own/a", "plan/a", "team/x", "team/y"}
	clientTags = []string{"own/a", "own/b", "own/c"}
)

// allTags returns every tag that somebody may have.
func allTags() []string {
	all := slices.Concat(tokenTags, serverTags, clientTags)
	slices.Sort(all)
	return slices.Compact(all)
}

// some returns a part of them, perhaps nothing, sorted as they are.
func some(l *lane, tags []string) []string {
	var part []string
	for _, t := range tags {
		if l.IntN(2) == 0 {
			part = append(part, t)
		}
	}
	return part
}

func toTags(names []string) []push.Tag {
	var tags []push.Tag
	for _, n := range names {
		tags = append(tags, push.Tag(n))
	}
	return tags
}

func tagNames(tags []push.Tag) []string {
	var names []string
	for _, t := range tags {
		names = append(names, string(t))
	}
	return names
}

// askTags notes that a set is asked for. Driver.
func (w *world) askTags(of history.Device, set string, tags []string) history.Record {
	w.tagged++
	r := history.Record{Kind: history.TagAsk, Device: of, Set: set, Seq: w.tagged, Tags: tags}
	w.note(r)
	r.Kind = history.TagAnswer
	return r
}

// noteToken notes the tags of a device's token, which it has from the beginning.
func (w *world) noteToken(d *device) {
	w.note(w.askTags(d.id, history.TokenSet, d.tags))
}

// setTags has the product's server set the tags of a user, or of a device. One of a product does that, so that what was set last
// is known.
func (w *world) setTags(d *device) {
	s := d.p.registrar
	if s.busy.Load() > 0 {
		return
	}
	of, set, path := d.id, deviceSet, "/v1/users/"+url.PathEscape(d.id.User)
	if w.script.IntN(2) == 0 {
		of.Device, set = "", userSet
	} else {
		path += "/devices/" + url.PathEscape(d.id.Device)
	}
	tags := some(w.script, serverTags)
	w.trace("the tags of %v (%s) are set to %v", of, set, tags)
	body, err := json.Marshal(map[string]any{"tags": append([]string{}, tags...)})
	if err != nil {
		panic(err) // strings
	}
	answer := w.askTags(of, set, tags)
	s.work(func() {
		for { // what is stored and not yet told to the rooms, the next attempt tells
			a, err := w.call(s.lane, s.p, http.MethodPut, path+"/tags", "", body)
			switch {
			case err == nil && a.status == http.StatusOK:
				w.note(answer)
				return
			case err == nil && a.status == http.StatusNotFound && set == deviceSet:
				return // it has not connected yet, or the store fell back to before it had
			case err == nil && a.status < 500:
				w.fault("%s sets tags: status %d, %s", s.name, a.status, a.body.Bytes())
				return
			}
			wait(s.lane, s.lane.between(50*time.Millisecond, time.Second))
		}
	})
}

// join has a client join some tags and leave the others of its own.
func (w *world) join(d *device) {
	v := d.life
	if v == nil || v.changing {
		return
	}
	tags := some(w.script, clientTags)
	w.trace("%v joins %v", d.id, tags)
	var leave []string
	for _, t := range clientTags {
		if !slices.Contains(tags, t) {
			leave = append(leave, t)
		}
	}
	answer := w.askTags(d.id, joinedSet, tags)
	d.storage.mu.Lock()
	d.asked = append(d.asked, answer)
	d.storage.mu.Unlock()
	v.changing = true
	over := w.sched.lane("join/" + d.id.Product + "/" + d.id.User + "/" + d.id.Device)
	go func() {
		_ = v.client.ChangeTags(v.ctx, toTags(tags), toTags(leave)) // an error says that nobody knows
		over.after(0, func() { v.changing = false })
	}()
}

// joined is the server's word on what a client has joined.
func (d *device) joined(tags []push.Tag) {
	names := tagNames(tags)
	d.storage.mu.Lock()
	defer d.storage.mu.Unlock()
	for i := len(d.asked) - 1; i >= 0; i-- {
		if slices.Equal(d.asked[i].Tags, names) {
			d.w.note(d.asked[i])
			return
		}
	}
	d.w.fault("%v joined %v, which it never asked for", d.id, names)
}

// noteTags notes what the store keeps of a user at rest, and looks whether every session of the user has its tags.
func (w *world) noteTags(p *product, u string, known []saver.Device) {
	ref := saver.UserRef{Product: p.id, Shards: 2, User: push.UserID(u)}
	kept, err := w.back.saver.Tags(context.Background(), []saver.UserRef{ref})
	if err != nil {
		w.fault("reading the tags of %s at rest: %v", u, err)
		return
	}
	of := history.Device{Product: string(p.id), User: u}
	w.note(history.Record{Kind: history.TagRest, Device: of, Set: userSet, Tags: tagNames(kept[0].User)})
	for _, v := range known {
		of.Device = string(v.Device)
		tags := kept[0].Of(v.Device)
		w.note(history.Record{Kind: history.TagRest, Device: of, Set: deviceSet, Tags: tagNames(tags.Set)})
		w.note(history.Record{Kind: history.TagRest, Device: of, Set: joinedSet, Tags: tagNames(tags.Joined)})
	}
	live, _ := notifier{w: w}.Sessions(context.Background(), p.id, push.UserID(u))
	for _, s := range live {
		d := w.deviceOf(p, u, string(s.Device))
		has := kept[0].Kept(s.Device)
		if want := push.UniteTags(toTags(d.tags), has.Given, has.Joined); !slices.Equal(s.Tags, want) {
			w.fault("the session of %v has the tags %v, its token and the store say %v", d.id, s.Tags, want)
		}
	}
}
