"""Function words by language: they carry grammar, not a topic. Data only; `terms` says when they are left out."""

STOP_WORDS = {
    "en": """
        a about after again all also am an and any are as at be because been before being between both but by can could
        did do does doing done during each for from further get had has have having he her here hers him his how i if
        in into is it its itself just me might more most much my no nor not of off on once only or other our ours out
        over own please same shall she should so some such tell than that the their theirs them then there these they
        this those through to too under until up us very was we were what when where which while who whom whose why
        will with would you your yours s t d ll m re ve don doesn didn isn wasn can cannot
    """,
    "de": """
        aber alle allem allen aller alles als also am an ander andere anderen auch auf aus bei beim bin bis bist bitte
        da damit dann das dass dein dem den denn der des dessen deren die dies diese diesem diesen dieser dieses doch
        dort du durch ein eine einem einen einer eines er es etwa euch euer für gegen gibt hab habe haben hat hatte
        hatten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jedem jeden jeder
        jedes kann kein keine keinen können könnte machen man mein mich mir mit muss nach nicht noch nun nur ob oder
        ohne sehr sein seine seinem seinen seiner seit sich sie sind so soll sollte um und uns unser unter vom von vor
        war waren warum was weil welche welchem welchen welcher welches wem wen wenn wer werde werden wessen wie wieder
        will wir wird wirst wo wohin woher worden wurde wurden würde zu zum zur zwischen über während wann wofür womit
    """,
    "fr": """
        a ai ainsi après au aucun aussi autre aux avait avant avec avez avoir c ce cela ces cet cette ceux chez
        comme comment d dans de des donc dont du elle elles en entre est et etre être eu faire fait font furent fut il
        ils j je l la le les leur leurs lequel laquelle lesquels lors lui m ma mais me mes moi mon même n ne nos notre
        nous on ont ou où par pas pendant peut plus pour pourquoi qu quand que quel quelle quelles quels qui quoi s sa
        sans se selon sera ses si son sont sous sur t ta te tes toi ton tous tout toute toutes tu un une vers vos votre
        vous y à étaient était été combien
    """,
    "es": """
        a al algo algunos ante antes aquel aquella como con contra cual cuales cuando cuanto cuantos cuanta cuantas de
        del desde donde dos durante e el ella ellas ellos en entre era eran es esa ese eso esta estaba estado están
        estas este esto estos fue fueron ha había han hasta hay he la las le les lo los más me mi mis muy nada ni no
        nos nosotros o os otra otro para pero por porque que quien quienes qué se sea según ser si sido sin sobre son
        su sus sí también tan te tiene tienen todo todos tu tus un una uno unos unas y ya yo cómo cuál dónde cuándo
    """,
    "it": """
        a ad agli ai al alla alle allo anche ancora avere aveva c che chi ci cioè come con contro cosa cui d da dagli
        dai dal dalla dalle dallo degli dei del dell della delle dello di dove e ed era erano essere fra fu furono gli
        ha hai hanno ho i il in io l la le lei li lo loro lui ma me mi mia mio ne negli nei nel nell nella nelle nello
        noi non nostro o ogni per perché però più poi qual quale quali quando quanti quanto quella quelle quelli quello
        questa queste questi questo se sei si sia siamo sono sopra sotto stata stati stato su sua sue sugli sui sul
        sulla sulle suo suoi te ti tra tu tuo tutti tutto un una uno vi voi è all
    """,
    "pt": """
        a ao aos aquela aquele aquilo as até com como da das de dela dele deles depois do dos e é ela elas ele eles em
        entre era eram essa esse esta este estes eu foi foram há isso isto já la lhe mais mas me mesmo meu minha muito
        na nas nem no nos nossa nosso não num numa o onde os ou para pela pelas pelo pelos por porque porquê qual quais
        quando quanto quantos quantas que quem se seja sem ser seu seus sob sobre sua suas são só também te tem têm teu
        tinha toda todas todo todos tu um uma umas uns você vocês à às está estão
    """,
    "nl": """
        aan achter al alle alles als andere ben bij daar dan dat de deze die dit doch doen door dus een en er ge geen
        had hadden heb hebben heeft hem het hier hij hoe hoeveel hun ik in is ja je jij jou jouw jullie kan kon kunnen
        maar me meer men met mij mijn moet na naar niet niets nog nu of om omdat ons onze ook op over s t te tegen toch
        toen tot u uit uw van vanaf veel voor waar waarom wanneer want waren was wat we welk welke werd werden wie wij
        wil worden wordt zal ze zich zij zijn zo zonder zou zullen tijdens tussen
    """,
}
"""Space-separated, lower case, with their accents; ISO 639-1 code to words."""
