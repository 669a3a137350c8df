"""Values of the open slots of the train split, enough of each kind that almost none is used twice.

Near relatives stand side by side on purpose (`Jon`, `Jonah`, `Jonathan`): only copying letter by letter gets
them right. Event titles begin with a consonant, because templates put `a` before them.
"""

TRAIN_VALUES: dict[str, str] = {
    "person": """
        Maria; Tomas; Aisha; Kenji; Ingrid; Paulo; Fatima; Declan; Yuki; Sandra; Omar; Greta; Felix; Nadia;
        Marcus; Leila; Henrik; Chloe; Rajesh; Bianca; Stefan; Amara; Victor; Hannah; Diego; Sofia; Liam;
        Mei; Andre; Freya; Hugo; Zainab; Peter; Lucia; Anton; Rosa; Samuel; Elif; Jonas; Carmen; Ethan;
        Noor; Gavin; Teresa; Ivan; Bridget; Malik; Astrid; Oscar; Wendy; Jon; Jonah; Jonathan; Katarina;
        Kathryn; Kaitlin; Catrin; Christabel; Kristoffer; Krzysztof; Mikael; Mikhail; Michaela; Alexandra;
        Alessandro; Aleksei; Gretchen; Gaspard; Gerwin; Crispin; Cressida; Siobhan; Saoirse; Aoife; Eoghan;
        Ruairi; Rhiannon; Llewellyn; Gwyneth; Hamish; Fergus; Isolde; Percival; Thaddeus; Bartholomew;
        Ignatius; Leopold; Wilhelmina; Gottfried; Annelise; Juergen; Heidrun; Sverre; Torbjorn; Gunnhild;
        Aino; Veikko; Eero; Zsofia; Bela; Laszlo; Zdenka; Vaclav; Jadwiga; Zbigniew; Milos; Dragana;
        Svetlana; Oksana; Yevgenia; Giuseppe; Ludovica; Guglielmo; Ximena; Joaquin; Guadalupe; Itziar;
        Thiago; Conceicao; Thibault; Genevieve; Anais; Etienne; Chidi; Ngozi; Oluwaseun; Abena; Kofi;
        Sipho; Nomvula; Tendai; Makena; Amadou; Yohannes; Hassan; Khadija; Mustafa; Shirin; Farhad; Aarav;
        Lakshmi; Sunil; Deepika; Vikram; Anh; Thuy; Minh; Jiaying; Xiaoming; Haruka; Soo-jin; Hyun-woo;
        Leilani; Wiremu; Aroha; Zoltan; Ulla; Bo; Ty""",
    "event": """
        budget review; team lunch; project kickoff; design workshop; sales call; dentist visit; piano
        lesson; tennis match; coffee break; birthday dinner; code review; parent meeting; house tour; job
        interview; yoga class; walk in the woods; movie night; contract signing; hiring panel; product
        demo; planning session; hiking trip; safety drill; wedding rehearsal; museum tour; client
        breakfast; vet checkup; swim practice; tax consultation; game night; status update; haircut; road
        test; lab meeting; garden party; choir rehearsal; Spanish class; photo shoot; bank appointment;
        book club; board meeting; brunch; dance lesson; pottery class; squash game; theatre trip; gallery
        opening; language exchange; legal briefing; mentoring hour; massage; tyre change; kitchen fitting;
        carpet cleaning; piano tuning; passport interview; school play; science fair; beach cleanup; blood
        donation; charity run; chemistry tutorial; campus tour; data migration; press conference; podcast
        taping; radio interview; server upgrade; sprint planning; town hall; training day; video call;
        volunteer shift; writing circle; zoo outing; baby shower; barbecue; bowling evening; camp reunion;
        cake tasting; dog grooming; driving lesson; fencing bout; film premiere; golf round; handover;
        hearing test; karaoke night; kayak tour; lunch date; makeup trial; mortgage talk; neighbourhood
        meeting; panel discussion; performance review; picnic; playdate; property survey; quiz evening;
        rooftop dinner; sailing course; sauna evening; sketching hour; ski weekend; surfing lesson; tea
        ceremony; trivia night; visa appointment; wardrobe fitting; welding course; window repair; barber
        appointment""",
    "task": """
        water the ferns; call the bank; pay the rent; take out the bins; renew my passport; feed the cat;
        book the flights; pick up the dry cleaning; charge the camera; send the invoice; buy stamps; return
        the library books; check the oven; cancel the gym membership; back up my laptop; walk the dog;
        order new glasses; clean the fish tank; print the tickets; wash the curtains; email the landlord;
        take my vitamins; change the bed sheets; collect the parcel; read the lease; defrost the chicken;
        sign the permission slip; replace the smoke alarm battery; mow the lawn; submit the expense report;
        thank my aunt; empty the dishwasher; review the slides; lock the shed; update my resume; move the
        car; stretch my back; bake the birthday cake; fix the leaking tap; confirm the hotel; oil the door
        hinges; sweep the chimney; top up the travel card; sew on the missing button; drop off the donation
        bags; varnish the bench; order printer ink; scan the contract; bleed the radiators; rinse the paint
        brushes; clear the gutters; label the boxes; register for the marathon; repot the cactus; trim the
        hedge; dust the bookshelf; file the tax return; apply for the grant; reply to the recruiter; pay
        the parking fine; draw up the guest list; reserve a table; get a haircut; sort the recycling; close
        the greenhouse; ring the school office; mail the postcards; tune the ukulele; study the vocabulary;
        learn my lines; practise the speech; rehearse the duet; mop the bathroom floor; grease the bike
        chain; pump up the football; salt the driveway; shovel the snow; rake the leaves; plant the tulip
        bulbs; harvest the beans; freeze the leftovers; marinate the tofu; knead the dough; whip the cream;
        boil the eggs; visit grandpa; congratulate the newlyweds; babysit the twins; bathe the puppy; brush
        the horse; worm the kittens; test the generator; update the firmware; change my password; archive
        the old emails; clear the browser cache; renew the domain; publish the newsletter; upload the
        holiday photos; exchange the currency; insure the bicycle; sell the old sofa; unpack the suitcase;
        assemble the wardrobe""",
    "label": """
        pasta; rice; green tea; yoga; laundry; bread dough; plank hold; piano practice; chicken; oven
        pizza; face mask; meditation; homework; soup; banana bread; hair dye; reading; dryer; stretching;
        lasagne; leek tart; power nap; study break; sourdough; cold brew; screen time; porridge; quiz
        round; broth; apple pie; warm-up; sauna; ice bath; marinade; salmon; speech; floor wax; pancake
        batter; board game; standup; baked potatoes; brownies; rye loaf; gingerbread; meringue; custard;
        fudge; granola; muesli; oat cookies; shortbread; scones; pretzels; focaccia; pierogi; dumplings;
        ramen; udon; paella; couscous; quinoa; chickpeas; black beans; roast pumpkin; ratatouille; goulash;
        chilli; tagine; curry; stir fry; fish fingers; meatballs; pork belly; duck breast; lamb shank;
        turkey; tempeh; jacket potato; boiled eggs; espresso machine; mint tea; kombucha; iced cocoa;
        washing machine; dishwasher; bleach; carpet foam; paint layer; varnish; clay oven; kiln; photo
        print; nap time; bath time; bedtime story; stair climb; chess clock; debate turn; mock exam;
        spelling test; typing drill; flute scales; guitar chords; ballet barre; rope skipping; rowing;
        treadmill; sprints; cooldown; breathing; foot soak; clay mask; hair curlers; contact lens soak;
        tanning; sprinkler; pool pump""",
    "item": """
        limes; paper towels; eggs; batteries; candles; tomatoes; trash bags; bananas; tea bags; light
        bulbs; apples; paper plates; onions; water bottles; napkins; avocados; granola bars; sponges;
        lemons; carrots; wool socks; plastic cups; yogurts; garlic bulbs; tent pegs; cucumbers; croissants;
        matches; peaches; balloons; bread rolls; mushrooms; sandwiches; blankets; juice boxes;
        toothbrushes; bell peppers; pears; wooden spoons; cans of beans; potatoes; notebooks; face towels;
        straws; muffins; apricots; artichokes; aubergines; leeks; parsnips; shallots; courgettes; pumpkins;
        melons; figs; dates; nectarines; pineapples; kiwis; pomegranates; grapefruits; clementines;
        papayas; raisin buns; waffles; crumpets; pitas; baguettes; cupcakes; doughnuts; lollipops;
        marshmallows; cereal bars; pretzel bags; packs of crisps; jars of olives; tubs of hummus; bottles
        of cider; cartons of milk; bags of charcoal; boxes of raisins; sausages; burgers; kebabs; fish
        fillets; stock cubes; spice jars; baking trays; cake forks; corkscrews; wine glasses; serving
        bowls; tablecloths; place cards; paper lanterns; streamers; whistles; glow sticks; fairy lights;
        hairbrushes; razors; cotton pads; shampoo bottles; plasters; sun hats; swimsuits; raincoats;
        scarves; mittens; T-shirts; handkerchiefs; shoe bags; travel adapters; power banks; phone chargers;
        padlocks; maps; compasses; ropes; carabiners; lanterns; hammocks; air mattresses; mosquito nets;
        water filters; thermos flasks; fire lighters; pans; can openers; clothes pegs; envelopes; crayons;
        glue sticks; sketch pads""",
}
"""Slot kind to values separated by semicolons; the kinds of `train_texts.TRAIN_TEXTS` are not among them."""
